//! The bindings generated from `wit/v0.1`: one module per world, with the types shared.
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, reason = "generated")]

pub mod backend {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        world: "backend-plugin",
        pub_export_macro: true,
    });
}

pub mod emitter {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        world: "emitter-plugin",
        pub_export_macro: true,
        with: {
            "heddle:overlay/types@0.1.0": crate::bindings::backend::heddle::overlay::types,
            "heddle:overlay/log@0.1.0": crate::bindings::backend::heddle::overlay::log,
        },
    });
}
