//! A stand-in for the proxy: as much of proxy-wasm ABI 0.2.1 as bursar calls, with every call and byte counted.
//!
//! It does what Envoy 1.40 does with `allow_on_headers_stop_iteration`, as far as a request comes through that is admitted or
//! answered: a body that is held is shown as a whole each time, one that passes chunk by chunk, and HTTP/1 ends each
//! body with one more call.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use wasmtime::{
    Caller, Config, Engine, Extern, Instance, Linker, Memory, Module, OptLevel, Store, TypedFunc,
};

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
}

/// What became of an exchange.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The body that went upstream.
    pub upstream: Vec<u8>,
    /// The status that the client sees.
    pub status: u32,
    /// The access log's fields.
    pub fields: HashMap<String, String>,
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;
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
    /// Request's and response's.
    headers: [Vec<(String, String)>; 2],
    /// Request's and response's.
    bodies: [Vec<u8>; 2],
    reply: Option<u32>,
    fields: HashMap<String, String>,
    nanos: u64,
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
        let upstream = self.message(context, 0, &request.chunks)?;
        let status = match self.store.data().reply {
            Some(status) => {
                self.store.data_mut().headers[1] = vec![(":status".to_owned(), status.to_string())];
                self.message(context, 1, &[])?;
                status
            }
            None => {
                self.store.data_mut().headers[1] = answer.headers.clone();
                self.message(context, 1, &answer.chunks)?;
                200
            }
        };
        self.call("proxy_on_log", &[context])?;
        self.call("proxy_on_done", &[context])?;
        self.call("proxy_on_delete", &[context])?;
        let fields = std::mem::take(&mut self.store.data_mut().fields);
        Ok(Outcome {
            upstream,
            status,
            fields,
        })
    }

    /// A message's way through the module, and the body that comes out. Ends where the module answers itself.
    fn message(&mut self, context: u32, side: usize, chunks: &[Vec<u8>]) -> Result<Vec<u8>, Fault> {
        let [on_headers, on_body] = [
            ["proxy_on_request_headers", "proxy_on_request_body"],
            ["proxy_on_response_headers", "proxy_on_response_body"],
        ][side];
        let count = u32::try_from(self.store.data().headers[side].len())?;
        self.call(on_headers, &[context, count, u32::from(chunks.is_empty())])?;
        let end: &[u8] = &[];
        let pieces = chunks.iter().map(Vec::as_slice).chain([end]);
        let last = chunks.len();
        let mut gone = Vec::new();
        for (index, chunk) in pieces.enumerate() {
            if last == 0 || self.store.data().reply.is_some() && side == 0 {
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

type Call<'a> = Caller<'a, Proxy>;
type Status = Result<u32, wasmtime::Error>;

fn memory(call: &Call<'_>) -> Result<Memory, wasmtime::Error> {
    call.data()
        .memory
        .ok_or_else(|| wasmtime::Error::msg("no memory yet"))
}

fn note(call: &mut Call<'_>, name: &'static str) {
    *call.data_mut().calls.entry(name).or_default() += 1;
}

/// Bytes that the module hands over.
fn taken(call: &mut Call<'_>, start: u32, size: u32) -> Result<Vec<u8>, wasmtime::Error> {
    let mut bytes = vec![0; size as usize];
    memory(call)?.read(&*call, start as usize, &mut bytes)?;
    call.data_mut().bytes += u64::from(size);
    Ok(bytes)
}

/// Bytes for the module, in memory that it allocates, or its own.
fn given(call: &mut Call<'_>, bytes: &[u8], start: u32, size: u32) -> Status {
    let length = u32::try_from(bytes.len()).map_err(|_| wasmtime::Error::msg("too long"))?;
    let allocate = call
        .data()
        .allocate
        .clone()
        .ok_or_else(|| wasmtime::Error::msg("no allocator yet"))?;
    let at = allocate.call(&mut *call, length)?;
    call.data_mut().bytes += u64::from(length);
    let memory = memory(call)?;
    memory.write(&mut *call, at as usize, bytes)?;
    number(call, start, at)?;
    number(call, size, length)
}

fn number(call: &mut Call<'_>, at: u32, number: u32) -> Status {
    memory(call)?.write(call, at as usize, &number.to_le_bytes())?;
    Ok(OK)
}

/// The proxy's form of a list of headers.
fn serialized(headers: &[(String, String)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = number(headers.len()).to_vec();
    for (name, value) in headers {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.bytes().chain([0]));
    }
    bytes
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All that the module imports. What bursar never calls traps.
fn linker(engine: &Engine, module: &Module) -> Result<Linker<Proxy>, Fault> {
    let mut linker = Linker::new(engine);
    for import in module.imports() {
        let fault = format!("{} is not in this proxy", import.name());
        let trap = move |_: Call<'_>, _: &[wasmtime::Val], _: &mut [wasmtime::Val]| {
            Err(wasmtime::Error::msg(fault.clone()))
        };
        if let Some(ty) = import.ty().func() {
            linker.func_new(import.module(), import.name(), ty.clone(), trap)?;
        }
    }
    linker.allow_shadowing(true);
    about_messages(&mut linker)?;
    about_state(&mut linker)?;
    about_the_system(&mut linker)?;
    Ok(linker)
}

fn about_messages(linker: &mut Linker<Proxy>) -> Result<(), Fault> {
    let side = |map: u32| if map < 2 { 0 } else { 1 };
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        move |mut call: Call<'_>, map: u32, data: u32, size: u32| {
            note(&mut call, "proxy_get_header_map_pairs");
            let bytes = serialized(&call.data().headers[side(map)]);
            given(&mut call, &bytes, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        move |mut call: Call<'_>, map: u32, key: u32, key_size: u32, data: u32, size: u32| {
            note(&mut call, "proxy_get_header_map_value");
            let key = text(taken(&mut call, key, key_size)?);
            let headers = &call.data().headers[side(map)];
            match headers
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.clone())
            {
                Some(value) => given(&mut call, value.as_bytes(), data, size),
                None => Ok(NOT_FOUND),
            }
        },
    )?;
    for (name, replaces) in [
        ("proxy_replace_header_map_value", true),
        ("proxy_add_header_map_value", false),
    ] {
        linker.func_wrap(
            "env",
            name,
            move |mut call: Call<'_>,
                  map: u32,
                  key: u32,
                  key_size: u32,
                  value: u32,
                  size: u32|
                  -> Status {
                note(&mut call, name);
                let key = text(taken(&mut call, key, key_size)?);
                let value = text(taken(&mut call, value, size)?);
                let headers = &mut call.data_mut().headers[side(map)];
                if replaces {
                    headers.retain(|(name, _)| *name != key);
                }
                headers.push((key, value));
                Ok(OK)
            },
        )?;
    }
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        move |mut call: Call<'_>, map: u32, key: u32, key_size: u32| -> Status {
            note(&mut call, "proxy_remove_header_map_value");
            let key = text(taken(&mut call, key, key_size)?);
            call.data_mut().headers[side(map)].retain(|(name, _)| *name != key);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut call: Call<'_>, buffer: u32, start: u32, most: u32, data: u32, size: u32| {
            note(&mut call, "proxy_get_buffer_bytes");
            let proxy = call.data();
            let all = match buffer {
                0 => &proxy.bodies[0],
                1 => &proxy.bodies[1],
                _ => &proxy.configuration,
            };
            let bytes: Vec<u8> = all
                .iter()
                .skip(start as usize)
                .take(most as usize)
                .copied()
                .collect();
            given(&mut call, &bytes, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |mut call: Call<'_>, buffer: u32, start: u32, most: u32, data: u32, size: u32| -> Status {
            note(&mut call, "proxy_set_buffer_bytes");
            let bytes = taken(&mut call, data, size)?;
            let body = &mut call.data_mut().bodies[buffer as usize];
            let end = (most as usize).min(body.len());
            body.splice(start as usize..end, bytes);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |mut call: Call<'_>,
         status: u32,
         details: u32,
         details_size: u32,
         body: u32,
         body_size: u32,
         headers: u32,
         headers_size: u32,
         _: i32|
         -> Status {
            note(&mut call, "proxy_send_local_response");
            for (at, size) in [
                (details, details_size),
                (body, body_size),
                (headers, headers_size),
            ] {
                taken(&mut call, at, size)?;
            }
            call.data_mut().reply = Some(status);
            Ok(OK)
        },
    )?;
    Ok(())
}

fn about_state(linker: &mut Linker<Proxy>) -> Result<(), Fault> {
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        |mut call: Call<'_>, key: u32, key_size: u32, data: u32, size: u32, cas: u32| {
            note(&mut call, "proxy_get_shared_data");
            let key = taken(&mut call, key, key_size)?;
            let Some((value, version)) = call.data().shared.get(&key).cloned() else {
                return Ok(NOT_FOUND);
            };
            number(&mut call, cas, version)?;
            given(&mut call, &value, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        |mut call: Call<'_>, key: u32, key_size: u32, value: u32, size: u32, cas: u32| -> Status {
            note(&mut call, "proxy_set_shared_data");
            let key = taken(&mut call, key, key_size)?;
            let value = taken(&mut call, value, size)?;
            let proxy = call.data_mut();
            let current = proxy.shared.get(&key).map(|(_, version)| *version);
            if current.is_some_and(|current| cas != 0 && cas != current) {
                return Ok(CAS_MISMATCH);
            }
            proxy.version += 1;
            proxy.shared.insert(key, (value, proxy.version));
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |mut call: Call<'_>, _: u32, name: u32, size: u32, id: u32| {
            note(&mut call, "proxy_define_metric");
            let name = taken(&mut call, name, size)?;
            let metrics = &mut call.data_mut().metrics;
            metrics.push(name);
            let defined = u32::try_from(metrics.len()).unwrap_or(u32::MAX);
            number(&mut call, id, defined)
        },
    )?;
    let known = |call: &Call<'_>, id: u32| match id as usize {
        id if (1..=call.data().metrics.len()).contains(&id) => Ok(OK),
        _ => Err(wasmtime::Error::msg("a metric that was not defined")),
    };
    linker.func_wrap(
        "env",
        "proxy_increment_metric",
        move |mut call: Call<'_>, id: u32, _: i64| {
            note(&mut call, "proxy_increment_metric");
            known(&call, id)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_record_metric",
        move |mut call: Call<'_>, id: u32, _: u64| {
            note(&mut call, "proxy_record_metric");
            known(&call, id)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |mut call: Call<'_>, path: u32, path_size: u32, _: u32, _: u32| -> Status {
            note(&mut call, "proxy_get_property");
            taken(&mut call, path, path_size)?;
            Ok(NOT_FOUND)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut call: Call<'_>, path: u32, path_size: u32, value: u32, size: u32| -> Status {
            note(&mut call, "proxy_set_property");
            let path = text(taken(&mut call, path, path_size)?);
            let value = text(taken(&mut call, value, size)?);
            call.data_mut().fields.insert(path, value);
            Ok(OK)
        },
    )?;
    Ok(())
}

fn about_the_system(linker: &mut Linker<Proxy>) -> Result<(), Fault> {
    linker.func_wrap(
        "env",
        "proxy_get_current_time_nanoseconds",
        |mut call: Call<'_>, time: u32| -> Status {
            note(&mut call, "proxy_get_current_time_nanoseconds");
            call.data_mut().nanos += 1_000;
            let nanos = call.data().nanos;
            memory(&call)?.write(&mut call, time as usize, &nanos.to_le_bytes())?;
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_log_level",
        |mut call: Call<'_>, level: u32| {
            note(&mut call, "proxy_get_log_level");
            number(&mut call, level, 2)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_log",
        |mut call: Call<'_>, _: u32, message: u32, size: u32| -> Status {
            note(&mut call, "proxy_log");
            let message = text(taken(&mut call, message, size)?);
            call.data_mut().log.push(message);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_effective_context",
        |mut call: Call<'_>, _: u32| {
            note(&mut call, "proxy_set_effective_context");
            OK
        },
    )?;
    // Always the same, so that hash maps are.
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "random_get",
        |_: Call<'_>, _: u32, _: u32| OK,
    )?;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "environ_sizes_get",
        |mut call: Call<'_>, count: u32, size: u32| {
            memory_of_wasi(&mut call)?;
            number(&mut call, count, 0)?;
            number(&mut call, size, 0)
        },
    )?;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "environ_get",
        |_: Call<'_>, _: u32, _: u32| OK,
    )?;
    Ok(())
}

/// The WASI calls come before the module is known to be there.
fn memory_of_wasi(call: &mut Call<'_>) -> Result<(), wasmtime::Error> {
    if let Some(Extern::Memory(memory)) = call.get_export("memory") {
        call.data_mut().memory = Some(memory);
    }
    Ok(())
}
