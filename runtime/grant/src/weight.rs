//! Cost of instantiating a component, computed from its binary.
//!
//! For each instance of a module the host allocates a record with room for every function and
//! global, and fills it and the tables without checking the deadline. A small component can have
//! many instances of a large module.

use wasmparser::{BinaryReaderError, ElementItems, Parser, Payload};

/// Weight limit of a component: each unit costs some tens of bytes and nanoseconds. A component
/// that contains a whole language runtime has a tenth of it.
pub const LIMIT: u64 = 2_000_000;

/// Returns the number of functions, globals and table elements in all module instances of a
/// component. Every instance counts as one of the largest module, so the result is an upper bound.
///
/// # Errors
///
/// The bytes are not a component.
pub fn of(component: &[u8]) -> Result<u64, BinaryReaderError> {
    let mut heaviest = 0_u64;
    // Module instances in each component that is still open, and the maximum among the complete
    // ones.
    let mut open = Vec::new();
    let mut most = 0_u64;
    let mut module = 0_u64;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { encoding, .. } => {
                let is_module = encoding == wasmparser::Encoding::Module;
                open.push((is_module, 0_u64));
                module = 0;
            }
            Payload::End(_) => match open.pop() {
                Some((true, _)) => heaviest = heaviest.max(module),
                Some((false, instances)) => most = most.max(instances),
                None => {}
            },
            Payload::ImportSection(section) => module += u64::from(section.count()),
            Payload::FunctionSection(section) => module += u64::from(section.count()),
            Payload::GlobalSection(section) => module += u64::from(section.count()),
            Payload::ElementSection(section) => {
                for element in section {
                    module += match element?.items {
                        ElementItems::Functions(items) => u64::from(items.count()),
                        ElementItems::Expressions(_, items) => u64::from(items.count()),
                    };
                }
            }
            Payload::InstanceSection(section) => {
                let instantiated = |instance: &Result<wasmparser::Instance<'_>, _>| {
                    matches!(instance, Ok(wasmparser::Instance::Instantiate { .. }))
                };
                let count = section.into_iter().filter(instantiated).count() as u64;
                add(&mut open, count);
            }
            Payload::ComponentInstanceSection(section) => {
                let instantiated = |instance: &Result<wasmparser::ComponentInstance<'_>, _>| {
                    matches!(instance, Ok(wasmparser::ComponentInstance::Instantiate { .. }))
                };
                let count = section.into_iter().filter(instantiated).count() as u64;
                // A component precedes the instances of it.
                add(&mut open, count.saturating_mul(most));
            }
            _ => {}
        }
    }
    Ok(most.saturating_mul(heaviest))
}

fn add(open: &mut [(bool, u64)], instances: u64) {
    if let Some((_, count)) = open.last_mut() {
        *count = count.saturating_add(instances);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(text: &str) -> u64 {
        of(&wat::parse_str(text).unwrap()).unwrap()
    }

    #[test]
    fn every_module_instance_counts() {
        let module = "(core module $m
            (import \"\" \"f\" (func $f)) (func $g) (global i32 (i32.const 0))
            (table 9 funcref) (elem (i32.const 0) $f $g $g))";
        let one = "(core instance (instantiate $m (with \"\" (instance $i))))";
        let lowered = "(import \"f\" (func $f)) (core func $l (canon lower (func $f)))
            (core instance $i (export \"f\" (func $l)))";
        assert_eq!(weight(&format!("(component {module})")), 0);
        assert_eq!(weight(&format!("(component {module} {lowered} {one})")), 6);
        assert_eq!(weight(&format!("(component {module} {lowered} {one} {one})")), 12);
    }

    #[test]
    fn nested_instances_multiply() {
        let inner = "(component $c (core module $m (func) (func))
            (core instance (instantiate $m)) (core instance (instantiate $m)))";
        let middle = format!(
            "(component $d {inner} (instance (instantiate $c)) (instance (instantiate $c)))"
        );
        assert_eq!(weight(&format!("(component {middle} (instance (instantiate $d)))")), 8);
        let outer = "(instance (instantiate $d)) ".repeat(10);
        assert_eq!(weight(&format!("(component {middle} {outer})")), 80);
    }
}
