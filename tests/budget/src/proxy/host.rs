//! What the module calls, on the proxy's side: each call and each byte counted.

use wasmtime::{Caller, Engine, Extern, Linker, Memory, Module};

use super::{Fault, OK, Proxy};

const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

/// The headers and the body of what a call of the module's own was answered.
const OF_CALL: u32 = 6;
const BODY_OF_CALL: u32 = 4;

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
pub(super) fn linker(engine: &Engine, module: &Module) -> Result<Linker<Proxy>, Fault> {
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
    about_calls(&mut linker)?;
    Ok(linker)
}

fn about_messages(linker: &mut Linker<Proxy>) -> Result<(), Fault> {
    let side = |map: u32| if map < 2 { 0 } else { 1 };
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        move |mut call: Call<'_>, map: u32, data: u32, size: u32| {
            note(&mut call, "proxy_get_header_map_pairs");
            let bytes = match map {
                OF_CALL => serialized(&[(":status".to_owned(), "200".to_owned())]),
                _ => serialized(&call.data().headers[side(map)]),
            };
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
                BODY_OF_CALL => &proxy.store_answer,
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
            let reply = [
                taken(&mut call, details, details_size)?,
                taken(&mut call, body, body_size)?,
                taken(&mut call, headers, headers_size)?,
            ];
            call.data_mut().reply = Some((status, reply));
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
    fn value<'a>(call: &'a mut Call<'_>, id: u32) -> Result<&'a mut u64, wasmtime::Error> {
        let proxy = call.data_mut();
        let name = (id as usize).checked_sub(1);
        match name.and_then(|at| proxy.metrics.get(at)) {
            Some(name) => Ok(proxy.values.entry(name.clone()).or_default()),
            None => Err(wasmtime::Error::msg("a metric that was not defined")),
        }
    }
    linker.func_wrap(
        "env",
        "proxy_increment_metric",
        |mut call: Call<'_>, id: u32, by: i64| -> Status {
            note(&mut call, "proxy_increment_metric");
            let value = value(&mut call, id)?;
            *value = value.wrapping_add_signed(by);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_record_metric",
        |mut call: Call<'_>, id: u32, to: u64| -> Status {
            note(&mut call, "proxy_record_metric");
            *value(&mut call, id)? = to;
            Ok(OK)
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
            let fields = &mut call.data_mut().fields;
            match path.as_str() {
                "bursar" => fields.extend(members(&value)),
                _ => drop(fields.insert(path, value)),
            }
            Ok(OK)
        },
    )?;
    Ok(())
}

/// What the one property of all fields says, by the names that each field has as a property of its own.
fn members(object: &str) -> impl Iterator<Item = (String, String)> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(object).unwrap_or_default();
    object.into_iter().map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (format!("bursar_{name}"), text)
    })
}

fn about_the_system(linker: &mut Linker<Proxy>) -> Result<(), Fault> {
    linker.func_wrap(
        "env",
        "proxy_get_current_time_nanoseconds",
        |mut call: Call<'_>, time: u32| -> Status {
            note(&mut call, "proxy_get_current_time_nanoseconds");
            if !call.data().is_frozen {
                call.data_mut().nanos += 1_000;
            }
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
    linker.func_wrap(
        "env",
        "proxy_set_tick_period_milliseconds",
        |mut call: Call<'_>, millis: u32| {
            note(&mut call, "proxy_set_tick_period_milliseconds");
            call.data_mut().tick_millis = millis;
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

fn about_calls(linker: &mut Linker<Proxy>) -> Result<(), Fault> {
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |mut call: Call<'_>,
         cluster: u32,
         cluster_size: u32,
         headers: u32,
         headers_size: u32,
         body: u32,
         size: u32,
         _: u32,
         _: u32,
         _: u32,
         token: u32|
         -> Status {
            note(&mut call, "proxy_http_call");
            taken(&mut call, cluster, cluster_size)?;
            taken(&mut call, headers, headers_size)?;
            let body = taken(&mut call, body, size)?;
            let proxy = call.data_mut();
            proxy.store_token += 1;
            let sent = proxy.store_token;
            proxy.store_calls.push((sent, body));
            number(&mut call, token, sent)
        },
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
