//! What the proxy calls: the functions of proxy-wasm ABI 0.2.1 that bursar exports, and what lives in this VM.
//!
//! The Rust SDK exports every callback that there is, and the proxy calls each one that it finds for every request. Here are those
//! that bursar has a use for, and no other code between them and the filter.
#![expect(unsafe_code, reason = "the names of exported functions are foreign")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::config::{Config, Missing};
use crate::filter::{Action, Filter};
use crate::host::{self, Buffer, Host};
use crate::name::NameHashing;
use crate::store::Troubles;
use crate::telemetry;

/// All that lives in this VM, which has one thread.
struct Vm {
    host: Host,
    /// Plugin configurations by the id of their context: a few. An old one serves on until its last request is over.
    configs: RefCell<Vec<(u32, Rc<Config>)>>,
    /// Requests by the id of their context, which the proxy counts up: nobody can choose them to collide. A request is large
    /// and stays where it is.
    filters: RefCell<HashMap<u32, Box<Filter>, NameHashing>>,
}

thread_local! {
    static VM: Vm = const {
        Vm {
            host: Host::new(),
            configs: RefCell::new(Vec::new()),
            filters: RefCell::new(HashMap::with_hasher(NameHashing::new())),
        }
    };
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the proxy calls this once, before all else.
    unsafe { __wasm_call_ctors() };
    host::log_to_proxy();
}

/// Memory for what the host gives; [`host`] takes it over.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    host::allocate(size)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    VM.with(|vm| {
        let (Ok(configs), Ok(mut filters)) = (vm.configs.try_borrow(), vm.filters.try_borrow_mut())
        else {
            return;
        };
        if let Some((_, config)) = configs.iter().find(|(id, _)| *id == root) {
            filters.insert(context, Box::new(Filter::new(Rc::clone(config))));
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: usize) -> bool {
    VM.with(|vm| {
        log::set_max_level(vm.host.log_level());
        let config = Config::parse(&vm.host.bytes(Buffer::PluginConfiguration, 0, size));
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                log::error!("bursar refuses its configuration: {error}");
                return false;
            }
        };
        if config.missing == Missing::Pass {
            log::info!("bursar lets requests without a tenant pass unmetered (tenant.missing)");
        }
        // Counters that one hopes to see at zero are to be seen from the start.
        for metric in telemetry::troubles(&Troubles::default()) {
            vm.host.count(&metric);
        }
        let Ok(mut configs) = vm.configs.try_borrow_mut() else {
            return false;
        };
        configs.retain(|(id, _)| *id != root);
        configs.push((root, Rc::new(config)));
        true
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _: usize, is_end: bool) -> Action {
    with(context, |filter, host| filter.request_headers(host, is_end))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: usize, is_end: bool) -> Action {
    with(context, |filter, host| {
        filter.request_body(host, size, is_end)
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, _: usize) -> Action {
    with(context, Filter::request_trailers)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, _: usize, is_end: bool) -> Action {
    with(context, |filter, host| {
        filter.response_headers(host, is_end)
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(context: u32, size: usize, is_end: bool) -> Action {
    with(context, |filter, host| {
        filter.response_body(host, size, is_end)
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(context: u32, _: usize) -> Action {
    with(context, Filter::response_trailers)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    with(context, |filter, host| {
        filter.log(host);
        Action::Continue
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    VM.with(|vm| {
        let (Ok(mut filters), Ok(mut configs)) =
            (vm.filters.try_borrow_mut(), vm.configs.try_borrow_mut())
        else {
            return;
        };
        if filters.remove(&context).is_none() {
            configs.retain(|(id, _)| *id != context);
        }
    });
}

/// Gives a callback to the request that it is about.
fn with(context: u32, callback: impl FnOnce(&mut Filter, &Host) -> Action) -> Action {
    VM.with(|vm| {
        // The proxy calls nothing from within a callback but for memory.
        let Ok(mut filters) = vm.filters.try_borrow_mut() else {
            return Action::Continue;
        };
        filters
            .get_mut(&context)
            .map_or(Action::Continue, |filter| callback(filter, &vm.host))
    })
}
