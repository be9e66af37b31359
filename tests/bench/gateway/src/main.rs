//! What an AI gateway runs beside Envoy: an external processor that reads both bodies, exchanges the model and tells the usage, and a
//! rate-limit service that is asked before a request and told its tokens after it. As cheap as is honest: one process, one
//! thread, no tree of values, the model exchanged in its place, accounts in memory.
//!
//! It tells its port on the first line of its output, then for each line that it reads what it has counted, and ends with its input.

mod limits;
mod process;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessorServer;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Longer than any body of the benchmark.
const MESSAGE: usize = 16 << 20;
const WINDOW: u32 = 4 << 20;

/// What was done.
#[derive(Default)]
struct Counts {
    /// Bodies whose model was exchanged.
    rewritten: AtomicU64,
    /// Calls of the rate-limit service.
    asked: AtomicU64,
    /// Tokens that it was told of.
    tokens: AtomicU64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let counts = Arc::new(Counts::default());
    let told = Arc::clone(&counts);
    std::thread::spawn(move || tell(&told));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(listener, counts))?;
    Ok(())
}

async fn serve(
    listener: std::net::TcpListener,
    counts: Arc<Counts>,
) -> Result<(), Box<dyn std::error::Error>> {
    let processor = ExternalProcessorServer::new(process::Processor {
        counts: Arc::clone(&counts),
    });
    let limits = RateLimitServiceServer::new(limits::Limits::new(counts));
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .add_service(
            processor
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE),
        )
        .add_service(limits)
        .serve_with_incoming(
            TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?)
                .with_nodelay(Some(true)),
        )
        .await?;
    Ok(())
}

fn tell(counts: &Counts) {
    for _ in io::stdin().lock().lines() {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        println!(
            "rewritten={} asked={} tokens={}",
            number(&counts.rewritten),
            number(&counts.asked),
            number(&counts.tokens)
        );
        if io::stdout().flush().is_err() {
            break;
        }
    }
    std::process::exit(0);
}
