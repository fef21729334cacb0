#[path = "src/settings.rs"]
mod settings;
fn main() { let _ = wasmtime::Engine::new(&settings::settings()).unwrap(); }
