//! Emitters: the host's side of the world `emitter-plugin`.

use std::sync::Arc;

use heddle_core::site::Site;
use heddle_grant::text::plain;
use heddle_grant::{Capabilities, File, Limits, Refusal, Setting, World, check};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::emitter::exports::heddle::overlay::emitter as wit;
use crate::bindings::emitter::{EmitterPlugin, EmitterPluginPre};
use crate::breaker::Subject;
use crate::error::{CallError, Reason};
use crate::host::HostState;
use crate::metrics::Metrics;
use crate::to_wit;
use crate::worker::{Exports, WorkerHandle};

/// Input of an emitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The node, of which emitters see the config and the lease.
    pub site: Arc<Site>,
    /// MTU for containers' interfaces, in bytes.
    pub mtu: u32,
    /// True if the daemon masquerades traffic that leaves the overlay (`--ip-masq`).
    pub ip_masq: bool,
}

/// A running emitter plugin. Calls are queued; none blocks the caller's thread.
pub struct Emitter {
    worker: WorkerHandle<EmitterPlugin>,
    capabilities: Arc<Capabilities>,
}

impl Emitter {
    pub(crate) fn new(
        worker: WorkerHandle<EmitterPlugin>,
        capabilities: Arc<Capabilities>,
    ) -> Self {
        Self { worker, capabilities }
    }

    /// Returns the plugin's name.
    pub fn name(&self) -> &str {
        self.worker.plugin()
    }

    /// Returns the plugin's counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.worker.metrics()
    }

    /// Asks the plugin for the files for this lease.
    ///
    /// # Errors
    ///
    /// [`Reason::Emitter`], when the plugin has none and says why; [`Reason::Refused`], when a file
    /// is not acceptable; or another reason why the call failed.
    pub async fn emit(&self, view: &View, settings: &[Setting]) -> Result<Vec<File>, CallError> {
        const CALL: &str = "emit";
        let (view, settings) = (view.clone(), settings.to_vec());
        let capabilities = self.capabilities.clone();
        let result = self
            .worker
            .run(CALL, move |worker| {
                let (wit_view, wit_settings) = (to_wit_view(&view), to_wit_settings(&settings));
                let answer = worker.call(Subject::Node(CALL), |guest, store| {
                    guest.heddle_overlay_emitter().call_emit(store, &wit_view, &wit_settings)
                })?;
                let answer = answer.map_err(|message| Reason::Emitter(plain(&message)))?;
                let checked = files(answer, worker.limits()).and_then(|files| {
                    check::files(&files, &capabilities, &settings)?;
                    Ok(files)
                });
                checked.map_err(|refusal| {
                    worker.metrics().count_refusal();
                    Reason::Refused(refusal)
                })
            })
            .await?;
        result.map_err(|reason| CallError {
            plugin: self.name().to_owned(),
            call: CALL,
            peer: None,
            reason,
        })
    }
}

fn to_wit_view(view: &View) -> wit::View {
    wit::View {
        config: to_wit::config(&view.site.config),
        lease: to_wit::lease(&view.site.lease),
        mtu: view.mtu,
        ip_masq: view.ip_masq,
    }
}

fn to_wit_settings(settings: &[Setting]) -> Vec<wit::Setting> {
    settings
        .iter()
        .map(|setting| wit::Setting { name: setting.name.clone(), value: setting.value.clone() })
        .collect()
}

fn files(files: Vec<wit::File>, limits: &Limits) -> Result<Vec<File>, Refusal> {
    if files.len() > limits.files {
        let rule = format!("expected at most {}", limits.files);
        return Err(Refusal::new(format_args!("{} files", files.len()), rule));
    }
    if let Some(file) = files.iter().find(|file| file.contents.len() > limits.file) {
        let object = format!("file {} of {} bytes", file.path, file.contents.len());
        return Err(Refusal::new(object, format!("expected at most {}", limits.file)));
    }
    let file =
        |file: wit::File| File { path: file.path.into(), mode: file.mode, contents: file.contents };
    Ok(files.into_iter().map(file).collect())
}

impl Exports for EmitterPlugin {
    type Prepared = EmitterPluginPre<HostState>;

    fn prepare(component: InstancePre<HostState>, _: World) -> wasmtime::Result<Self::Prepared> {
        EmitterPluginPre::new(component)
    }

    fn instantiate(
        prepared: &Self::Prepared,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Self> {
        prepared.instantiate(store)
    }
}
