//! The bindings generated from `wit/v0.1`: one module per exported interface, with the types shared.
//!
//! A world with several of them is exported as the union of worlds with one each, which the linker makes of it: a
//! world's bindings have macros at the root of the crate, so that an interface cannot be in two.
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, reason = "generated")]

pub mod backend {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        world: "backend-plugin",
        pub_export_macro: true,
    });
}

pub mod steering {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        inline: "package heddle:sdk; world steering { export heddle:overlay/steering@0.1.0; }",
        pub_export_macro: true,
        with: {
            "heddle:overlay/types@0.1.0": crate::bindings::backend::heddle::overlay::types,
        },
        generate_all,
    });
}

pub mod transform {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        inline: "package heddle:sdk; world transform { export heddle:overlay/transform@0.1.0; }",
        pub_export_macro: true,
        with: {
            "heddle:overlay/types@0.1.0": crate::bindings::backend::heddle::overlay::types,
        },
        generate_all,
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
