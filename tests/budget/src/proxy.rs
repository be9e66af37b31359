//! A stand-in for the proxy: as much of proxy-wasm ABI 0.2.1 as bursar calls, with every call and byte counted, and all that
//! either side sees kept. `make budget` counts with it, `make differential` compares two modules.
//!
//! It does what Envoy 1.40 does with `allow_on_headers_stop_iteration`, as far as a request comes through that is admitted or
//! answered: a body that is held is shown as a whole each time, one that passes chunk by chunk, and HTTP/1 ends each
//! body with one more call.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use wasmtime::{Config, Engine, Instance, Memory, Module, OptLevel, Store, TypedFunc};

#[path = "proxy/host.rs"]
mod host;
#[path = "proxy/store.rs"]
mod store;

use host::linker;

pub type Fault = Box<dyn std::error::Error>;

/// What a scenario costs.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// WebAssembly instructions that were executed. `memory.copy` and `memory.fill` are one each, however long.
    pub instructions: u64,
    /// The same by callback.
    pub callbacks: BTreeMap<String, u64>,
    /// Host calls by name.
    pub calls: BTreeMap<&'static str, u64>,
    /// Bytes copied from the module to the proxy or back.
    pub bytes: u64,
}

/// A message: its headers, and its body in the chunks in which it arrives.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub headers: Vec<(String, String)>,
    pub chunks: Vec<Vec<u8>>,
    /// It never ends: the connection is lost after its last chunk.
    pub is_cut: bool,
}

/// What became of an exchange.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The headers and the body that went upstream.
    pub upstream_headers: Vec<(String, String)>,
    pub upstream: Vec<u8>,
    /// The status, headers and body that the client sees of an answer of the upstream's.
    pub status: u32,
    pub client_headers: Vec<(String, String)>,
    pub client: Vec<u8>,
    /// What the module answered itself: details, body and headers in the proxy's form.
    pub reply: Option<[Vec<u8>; 3]>,
    /// The access log's fields.
    pub fields: HashMap<String, String>,
}

const OK: u32 = 0;
const PAUSE: u32 = 1;

/// More than any scenario needs.
const FUEL: u64 = u64::MAX / 2;

/// What the module sees of the proxy.
#[derive(Default)]
struct Proxy {
    memory: Option<Memory>,
    allocate: Option<TypedFunc<u32, u32>>,
    configuration: Vec<u8>,
    shared: HashMap<Vec<u8>, (Vec<u8>, u32)>,
    version: u32,
    metrics: Vec<Vec<u8>>,
    /// By name: counters added up, gauges as they were last.
    values: BTreeMap<Vec<u8>, u64>,
    /// Request's and response's.
    headers: [Vec<(String, String)>; 2],
    /// Request's and response's.
    bodies: [Vec<u8>; 2],
    reply: Option<(u32, [Vec<u8>; 3])>,
    fields: HashMap<String, String>,
    nanos: u64,
    /// The clock stands still within an exchange.
    is_frozen: bool,
    /// How often the module wants to be called.
    tick_millis: u32,
    /// Calls to the store that are under way, and what was answered to the one that the module is told of.
    store_calls: Vec<(u32, Vec<u8>)>,
    store_answer: Vec<u8>,
    store_token: u32,
    log: Vec<String>,
    callbacks: BTreeMap<String, u64>,
    calls: BTreeMap<&'static str, u64>,
    bytes: u64,
}

/// The module, compiled.
pub struct Compiled {
    engine: Engine,
    module: Module,
}

impl Compiled {
    /// Compiles the module in a file.
    pub fn read(file: &Path) -> Result<Self, Fault> {
        let mut config = Config::default();
        config
            .consume_fuel(true)
            .cranelift_opt_level(OptLevel::None);
        let engine = Engine::new(&config)?;
        let module = Module::from_file(&engine, file)?;
        Ok(Self { engine, module })
    }
}

/// A VM with the module in it.
pub struct Vm {
    store: Store<Proxy>,
    instance: Instance,
    contexts: u32,
}

const ROOT: u32 = 1;

impl Vm {
    /// Loads and configures the module: the VM, and what the configuration costs.
    pub fn configured(compiled: &Compiled, configuration: &str) -> Result<(Self, Cost), Fault> {
        let Compiled { engine, module } = compiled;
        let mut store = Store::new(engine, Proxy::default());
        store.set_fuel(FUEL)?;
        let instance = linker(engine, module)?.instantiate(&mut store, module)?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or("the module exports no memory")?;
        let allocate = instance.get_typed_func(&mut store, "proxy_on_memory_allocate")?;
        let proxy = store.data_mut();
        proxy.memory = Some(memory);
        proxy.allocate = Some(allocate);
        proxy.configuration = configuration.as_bytes().to_vec();
        // 15 January 2026, noon.
        proxy.nanos = 1_768_478_400_000_000_000;
        let mut vm = Self {
            store,
            instance,
            contexts: ROOT,
        };
        vm.call("_initialize", &[])?;
        vm.call("proxy_on_context_create", &[ROOT, 0])?;
        vm.call("proxy_on_vm_start", &[ROOT, 0])?;
        vm.begin()?;
        let size = u32::try_from(configuration.len())?;
        match vm.call("proxy_on_configure", &[ROOT, size])? {
            1 => {}
            _ => return Err(format!("configuration refused: {:?}", vm.store.data().log).into()),
        }
        let cost = vm.cost()?;
        Ok((vm, cost))
    }

    /// One request and its answer.
    pub fn exchange(&mut self, request: &Message, answer: &Message) -> Result<Outcome, Fault> {
        self.contexts += 1;
        let context = self.contexts;
        let proxy = self.store.data_mut();
        proxy.nanos += 1_000_000_000;
        proxy.reply = None;
        proxy.fields.clear();
        proxy.headers = [request.headers.clone(), Vec::new()];
        proxy.bodies = Default::default();
        self.call("proxy_on_context_create", &[context, ROOT])?;
        let upstream = self.message(context, 0, request)?;
        let upstream_headers = self.store.data().headers[0].clone();
        let reply = self.store.data_mut().reply.take();
        let (status, reply) = reply.map_or((200, None), |(status, reply)| (status, Some(reply)));
        self.store.data_mut().headers[1] = match reply {
            Some(_) => vec![(":status".to_owned(), status.to_string())],
            None => answer.headers.clone(),
        };
        let nothing = Message::default();
        let client = self.message(context, 1, reply.as_ref().map_or(answer, |_| &nothing))?;
        let client_headers = self.store.data().headers[1].clone();
        self.call("proxy_on_log", &[context])?;
        self.call("proxy_on_done", &[context])?;
        self.call("proxy_on_delete", &[context])?;
        let fields = std::mem::take(&mut self.store.data_mut().fields);
        Ok(Outcome {
            upstream_headers,
            upstream,
            status,
            client_headers,
            client,
            reply,
            fields,
        })
    }

    /// A second is over; calls to the store are answered.
    pub fn tick(&mut self) -> Result<(), Fault> {
        let period = self.store.data().tick_millis;
        for _ in 0..1_000_u32.checked_div(period).unwrap_or(1) {
            self.call("proxy_on_tick", &[ROOT])?;
            for (token, body) in std::mem::take(&mut self.store.data_mut().store_calls) {
                let answer = store::answer(&body, self.store.data().nanos / 1_000_000)?;
                let size = u32::try_from(answer.len())?;
                self.store.data_mut().store_answer = answer;
                self.call("proxy_on_http_call_response", &[ROOT, token, 1, size, 0])?;
            }
        }
        Ok(())
    }

    /// From now on the clock moves between exchanges alone, so that a reading more or less changes nothing else.
    pub fn freeze_clock(&mut self) {
        self.store.data_mut().is_frozen = true;
    }

    /// So much time passes.
    pub fn pass(&mut self, nanos: u64) {
        self.store.data_mut().nanos += nanos;
    }

    /// All metrics by name.
    pub fn metrics(&self) -> &BTreeMap<Vec<u8>, u64> {
        &self.store.data().values
    }

    /// A message's way through the module, and the body that comes out. Ends where the module answers itself.
    fn message(&mut self, context: u32, side: usize, message: &Message) -> Result<Vec<u8>, Fault> {
        let Message { chunks, is_cut, .. } = message;
        let [on_headers, on_body] = [
            ["proxy_on_request_headers", "proxy_on_request_body"],
            ["proxy_on_response_headers", "proxy_on_response_body"],
        ][side];
        let count = u32::try_from(self.store.data().headers[side].len())?;
        let is_end = chunks.is_empty() && !is_cut;
        self.call(on_headers, &[context, count, u32::from(is_end)])?;
        let end: &[u8] = &[];
        let pieces = chunks.iter().map(Vec::as_slice).chain([end]);
        let last = chunks.len();
        let mut gone = Vec::new();
        for (index, chunk) in pieces.enumerate() {
            let is_answered = self.store.data().reply.is_some() && side == 0;
            if last == 0 || is_answered || index == last && *is_cut {
                break;
            }
            self.store.data_mut().bodies[side].extend(chunk);
            let size = u32::try_from(self.store.data().bodies[side].len())?;
            if self.call(on_body, &[context, size, u32::from(index == last)])? != PAUSE {
                gone.append(&mut self.store.data_mut().bodies[side]);
            }
        }
        Ok(gone)
    }

    /// Calls the module, if it has such a function: the proxy leaves out what it has not.
    fn call(&mut self, name: &str, arguments: &[u32]) -> Result<u32, Fault> {
        let Some(function) = self.instance.get_func(&mut self.store, name) else {
            return Ok(OK);
        };
        let arguments: Vec<wasmtime::Val> = arguments
            .iter()
            .map(|&argument| wasmtime::Val::I32(argument.cast_signed()))
            .collect();
        let results = function.ty(&self.store).results().len();
        let mut result = vec![wasmtime::Val::I32(0); results];
        let before = self.store.get_fuel()?;
        function
            .call(&mut self.store, &arguments, &mut result)
            .map_err(|error| format!("{name}: {error} {:?}", self.store.data().log))?;
        let used = before - self.store.get_fuel()?;
        let callbacks = &mut self.store.data_mut().callbacks;
        *callbacks.entry(name.to_owned()).or_default() += used;
        Ok(result
            .first()
            .and_then(wasmtime::Val::i32)
            .map_or(OK, i32::cast_unsigned))
    }

    /// Counts from here on.
    pub fn begin(&mut self) -> Result<(), Fault> {
        self.store.set_fuel(FUEL)?;
        let proxy = self.store.data_mut();
        proxy.callbacks.clear();
        proxy.calls.clear();
        proxy.bytes = 0;
        Ok(())
    }

    /// What was counted.
    pub fn cost(&self) -> Result<Cost, Fault> {
        let proxy = self.store.data();
        Ok(Cost {
            instructions: FUEL - self.store.get_fuel()?,
            callbacks: proxy.callbacks.clone(),
            calls: proxy.calls.clone(),
            bytes: proxy.bytes,
        })
    }
}
