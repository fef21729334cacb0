//! What the export macros plug together: the generated traits, answered by a plugin's type.

use std::marker::PhantomData;

use crate::bindings::backend::exports::heddle::overlay::backend as wit_backend;
use crate::bindings::backend::heddle::overlay::types as wit;
use crate::bindings::emitter::exports::heddle::overlay::emitter as wit_emitter;
use crate::{Backend, Emitter};

/// A [`Backend`] behind the generated trait.
pub struct BackendExport<T>(PhantomData<T>);

impl<T: Backend> wit_backend::Guest for BackendExport<T> {
    fn advertise(
        config: wit::NetworkConfig,
        node: wit::Node,
    ) -> Result<wit_backend::Advertisements, wit::ConfigError> {
        match T::advertise(&config.into(), &node.into()) {
            Ok(advertisements) => Ok(advertisements.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn plan_node(
        config: wit::NetworkConfig,
        node: wit::Node,
        lease: wit::Lease,
    ) -> Result<wit_backend::NodePlan, wit::ConfigError> {
        match T::plan_node(&config.into(), &node.into(), &lease.into()) {
            Ok(plan) => Ok(plan.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn plan_peer(
        config: wit::NetworkConfig,
        node: wit::Node,
        lease: wit::Lease,
        peer: wit::Lease,
    ) -> Result<wit::Plan, wit_backend::PeerError> {
        match T::plan_peer(&config.into(), &node.into(), &lease.into(), &peer.into()) {
            Ok(plan) => Ok(plan.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// An [`Emitter`] behind the generated trait.
pub struct EmitterExport<T>(PhantomData<T>);

impl<T: Emitter> wit_emitter::Guest for EmitterExport<T> {
    fn emit(
        view: wit_emitter::View,
        settings: Vec<wit_emitter::Setting>,
    ) -> Result<Vec<wit_emitter::File>, String> {
        let settings: Vec<_> = settings.into_iter().map(Into::into).collect();
        let files = T::emit(&view.into(), &settings)?;
        Ok(files.into_iter().map(Into::into).collect())
    }
}
