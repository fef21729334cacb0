//! What a component takes to come to life, told from its binary.
//!
//! For each instance of a module the host keeps a record with room for every function and variable, and fills it and the
//! tables without a look at the clock. A small component can have many instances of a large module.

use wasmparser::{BinaryReaderError, ElementItems, Parser, Payload};

/// The most that a component may have: some tens of bytes and nanoseconds each. A component with a language's whole
/// runtime inside has a tenth.
pub const LIMIT: u64 = 2_000_000;

/// Functions, variables and elements of tables in all instances of modules that a component has. As if each instance were
/// one of the largest module, so that it can be more than it is.
///
/// # Errors
///
/// The bytes are no component.
pub fn of(component: &[u8]) -> Result<u64, BinaryReaderError> {
    let mut heaviest = 0_u64;
    // Instances of modules in one instance of each component that is open, and the most in one that is complete.
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
                // A component stands before what has instances of it.
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
    fn each_instance_counts() {
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
    fn instances_in_instances_count_as_often_as_there_are_some() {
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
