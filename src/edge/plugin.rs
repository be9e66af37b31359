//! What the proxy starts: one configuration, as the SDK's root context, which creates a filter for each request.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use crate::base::hash::stable;
use crate::config::{Config, Missing};
use crate::edge::context::Filter;
use crate::edge::courier::{Courier, password};
use crate::edge::host::Host;
use crate::edge::page::{Page, Pages};
use crate::report::metrics;
use crate::state::duty::Duty;
use crate::state::store::StateFaults;
use crate::sweep::{Sweep, TICKS};

proxy_wasm::main! {{
    // This also installs a hook that writes a panic's message to the proxy's log.
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context| Box::new(Plugin::new(context)));
}}

thread_local! {
    /// One host for all configurations of this VM: the VM has one thread, and metric ids belong to the VM.
    static HOST: Rc<Host> = Rc::new(Host::new());
}

/// A plugin configuration. The proxy creates a new one for each change; an old one serves until its last request is over.
struct Plugin {
    /// The proxy's id of this context.
    context: u32,
    host: Rc<Host>,
    config: Option<Rc<Config>>,
    sweep: Option<Sweep>,
    ticks: u32,
    /// This configuration's number in this worker; 0 before it has one.
    number: u32,
    courier: Courier,
    /// Requests that wait for the report, if this configuration serves it.
    pages: Rc<Pages>,
}

impl Plugin {
    fn new(context: u32) -> Self {
        Self {
            context,
            host: HOST.with(Rc::clone),
            config: None,
            sweep: None,
            ticks: 0,
            number: 0,
            courier: Courier::default(),
            pages: Rc::default(),
        }
    }

    /// Publishes gauges, if this VM is the one of the process that does so.
    fn tell_gauges(&mut self) {
        let host = &*self.host;
        if let (Some(sweep), Some(config)) = (&mut self.sweep, &self.config) {
            sweep.serves = host.serves.get();
            sweep.tick(host, host, || host.now(), |id| host.newer_plan(config, id));
        }
    }
}

/// How often the host calls `on_tick`: counters are reported each second, gauges a few at a time.
const TICK: Duration = Duration::from_millis(1_000 / TICKS as u64);

impl Context for Plugin {
    /// The proxy is about to drop this configuration: counts must be reported now, since no tick follows.
    fn on_done(&mut self) -> bool {
        self.host.tell_counters();
        let host = &*self.host;
        if let (Some(sweep), Some(config)) = (&mut self.sweep, &self.config) {
            sweep.end(host, host, |id| host.newer_plan(config, id));
        }
        self.host.end(self.number);
        true
    }

    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _: usize) {
        self.courier.answered(&self.host, token, headers, body);
        self.host.wake(self.context);
    }
}

/// Reports what the configuration's last requests have counted.
impl Drop for Plugin {
    fn drop(&mut self) {
        self.host.tell_counters();
        self.host.end(self.number);
    }
}

impl RootContext for Plugin {
    fn on_tick(&mut self) {
        if self.host.is_newest(self.number) {
            self.courier.tick(&self.host);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS) {
            self.host.tell_counters();
        }
        self.tell_gauges();
        self.pages.go_on(&self.host, self.context);
        self.host.wake(self.context);
    }

    fn on_configure(&mut self, size: usize) -> bool {
        let host = &self.host;
        log::set_max_level(host.log_level());
        let bytes = host.bytes(BufferType::PluginConfiguration, 0, size);
        let config = match Config::parse(&bytes) {
            Ok(config) => config,
            Err(error) => {
                log::error!("bursar refuses its configuration: {error}");
                return false;
            }
        };
        log::info!("bursar {} has its configuration", metrics::VERSION);
        host.count(&metrics::build());
        if config.missing == Missing::Pass {
            log::info!("bursar lets requests without a tenant pass unmetered (tenant.missing)");
        }
        for warning in config.warnings().into_iter().filter(|_| !config.is_report) {
            log::warn!("bursar's configuration: {warning}");
        }
        // These counters should stay at zero, so they are published from the start.
        for metric in metrics::faults(&StateFaults::default()) {
            host.count(&metric);
        }
        if let Some(global) = &config.global
            && global.login.is_some()
            && password(global).is_none()
        {
            log::warn!(
                "bursar: the VM's environment has no variable of the name in global.redis.password_env (vm_config, \
                 environment_variables): the store will refuse every login"
            );
        }
        host.tell_counters();
        host.tick_each(TICK);
        let config = Rc::new(config);
        host.configured(&config);
        let duty = Duty {
            what: stable(&bytes),
            who: host.chance(),
        };
        self.sweep = Some(Sweep::new(Rc::clone(&config), duty));
        self.config = Some(config);
        if self.number == 0 {
            self.number = host.begin();
        }
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    /// Never returns `None`: the SDK would panic.
    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        if self.config.as_ref().is_some_and(|config| config.is_report) {
            return Some(Box::new(Page {
                context,
                host: Rc::clone(&self.host),
                pages: Rc::clone(&self.pages),
            }));
        }
        self.host.serves.set(true);
        Some(match &self.config {
            Some(config) => Box::new(Filter::new(
                Rc::clone(&self.host),
                Rc::clone(config),
                context,
            )),
            None => Box::new(Unconfigured),
        })
    }
}

/// A request that comes before any configuration passes unmetered. Envoy sends none.
struct Unconfigured;

impl Context for Unconfigured {}

impl HttpContext for Unconfigured {}
