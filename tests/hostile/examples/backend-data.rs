//! Advertises backend data that is too large for a lease, which all nodes read, or that is not
//! JSON.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::Advertisements;

/// The hostile plugin.
pub struct BackendData;

impl Malice for BackendData {
    fn advertise(scene: &Scene<'_>, good: &mut Advertisements) {
        let data = &mut good.backend_data;
        match scene.wish() {
            "huge" => data[0] = Some(format!("{:?}", "x".repeat(1 << 20))),
            "deep" => data[0] = Some("[".repeat(8000)),
            "fields" => data[0] = Some(r#"{},"PublicIP":"192.0.2.1""#.into()),
            "more" => data.push(None),
            _ => good.backend_type = Some(r#"x","PublicIP":"192.0.2.1"#.into()),
        }
    }
}

hostile!(BackendData, name = "backend-data");
