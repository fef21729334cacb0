//! Enforces a plugin's resource [`Limits`](heddle_grant::Limits).

use wasmtime::ResourceLimiter;

/// Limit on the number of elements in all function tables together. A Rust guest has a few hundred,
/// a language's whole runtime about ten thousand.
const TABLE_ELEMENTS: usize = 100_000;

/// Limit on the number of core module instances. A Rust guest has four; a language whose libraries
/// are separate modules has about ten.
const INSTANCES: usize = 100;

/// Limit on the number of memories. Nearly all components have one, which all their modules share;
/// each reserves some GiB of address space.
const MEMORIES: usize = 16;

/// Limit on the number of function tables.
const TABLES: usize = 100;

/// Resource limiter of one instance.
pub(crate) struct Limiter {
    memory: usize,
    used: usize,
    elements: usize,
}

impl Limiter {
    pub(crate) fn new(memory: usize) -> Self {
        Self { memory, used: 0, elements: 0 }
    }
}

/// Error for an instance that asked for more memory than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes of memory are more than the limit of {limit}")]
pub(crate) struct MemoryExceeded {
    pub(crate) limit: usize,
    pub(crate) asked: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A component may have several memories; the limit is on all of them together.
        let asked = self.used.saturating_add(desired.saturating_sub(current));
        if asked > self.memory {
            // An error instead of a refusal: it ends the call and gives the reason, while a guest
            // that is told that no memory is left would only trap.
            return Err(wasmtime::Error::new(MemoryExceeded { limit: self.memory, asked }));
        }
        self.used = asked;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let asked = self.elements.saturating_add(desired.saturating_sub(current));
        if asked > TABLE_ELEMENTS {
            return Err(wasmtime::Error::msg(format!(
                "{asked} elements in tables are more than the limit of {TABLE_ELEMENTS}"
            )));
        }
        self.elements = asked;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_together_beyond_limit_are_refused() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).is_ok());
        assert!(limiter.memory_growing(0, 40, None).is_ok());
        let error = limiter.memory_growing(40, 41, None).unwrap_err();
        assert_eq!(
            error.downcast_ref::<MemoryExceeded>(),
            Some(&MemoryExceeded { limit: 100, asked: 101 })
        );
    }

    #[test]
    fn tables_together_beyond_limit_are_refused() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.table_growing(0, 60_000, None).is_ok());
        assert!(limiter.table_growing(0, 40_000, None).is_ok());
        let error = limiter.table_growing(40_000, 40_001, None).unwrap_err().to_string();
        assert_eq!(error, "100001 elements in tables are more than the limit of 100000");
    }
}
