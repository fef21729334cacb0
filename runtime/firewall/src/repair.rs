//! Repairs rules that other programs write as well.

use std::fmt::Display;

use crate::FirewallError;

/// The repair of a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repair {
    /// Input for the program that changes it.
    pub(crate) input: String,
    /// The differences found.
    pub(crate) differences: Vec<Difference>,
}

/// A difference from the wanted state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The difference: `filter FLANNEL-FWD was missing`.
    pub(crate) found: String,
    /// The action of the repair: `repaired`.
    pub(crate) remedy: &'static str,
}

impl Difference {
    pub(crate) fn new(found: String, remedy: &'static str) -> Self {
        Self { found, remedy }
    }
}

/// The maximum number of repairs of a place per check.
const ROUNDS: usize = 3;

/// Repairs a place until it matches the wanted state, and appends the differences found to `lines`.
/// `seen` is the state at the start.
///
/// A write may fail, or be undone, because another program writes at the same time.
///
/// # Errors
///
/// The error of the last write, the error of a read, and [`FirewallError::StillDiffers`].
pub(crate) fn repair_place<S>(
    place: &dyn Display,
    mut seen: S,
    look: impl Fn() -> Result<S, FirewallError>,
    plan: impl Fn(&S) -> Option<Repair>,
    write: impl Fn(&str) -> Result<(), FirewallError>,
    lines: &mut Vec<String>,
) -> Result<(), FirewallError> {
    let mut failure = None;
    for _ in 0..ROUNDS {
        let Some(repair) = plan(&seen) else { return Ok(()) };
        match write(&repair.input) {
            Ok(()) => {
                failure = None;
                let differences = repair.differences.into_iter();
                lines.extend(
                    differences
                        .map(|Difference { found, remedy }| format!("{place}: {found}; {remedy}")),
                );
            }
            // The write may have failed because of an object that has since vanished, so retry.
            Err(error @ FirewallError::Failed { .. }) => failure = Some(error),
            Err(error) => return Err(error),
        }
        seen = look()?;
    }
    match (plan(&seen), failure) {
        (None, _) => Ok(()),
        (Some(_), Some(error)) => Err(error),
        (Some(repair), None) => Err(FirewallError::StillDiffers {
            place: place.to_string(),
            difference: repair
                .differences
                .first()
                .map_or_else(String::new, |difference| difference.found.clone()),
            rounds: ROUNDS,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    /// Settles a number to 0, with a program that changes it like this.
    fn settle_number(
        first: i32,
        write: impl Fn(&Cell<i32>) -> Result<(), FirewallError>,
    ) -> (Result<(), FirewallError>, Vec<String>) {
        let number = Cell::new(first);
        let lines = RefCell::new(Vec::new());
        let result = repair_place(
            &"there",
            first,
            || Ok(number.get()),
            |seen| {
                (*seen != 0).then(|| Repair {
                    input: String::new(),
                    differences: vec![Difference::new(format!("it was {seen}"), "repaired")],
                })
            },
            |_| write(&number),
            &mut lines.borrow_mut(),
        );
        (result, lines.into_inner())
    }

    fn failed() -> FirewallError {
        FirewallError::Failed {
            command: "nft".into(),
            status: ExitStatus::from_raw(256),
            stderr: "no such file".into(),
        }
    }

    #[test]
    fn settled_place_is_not_written() {
        let (result, lines) = settle_number(0, |_| panic!("written"));
        result.unwrap();
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn repaired_difference_is_reported() {
        let (result, lines) = settle_number(7, |number| {
            number.set(0);
            Ok(())
        });
        result.unwrap();
        assert_eq!(lines, ["there: it was 7; repaired"]);
    }

    #[test]
    fn failed_write_is_retried_after_another_look() {
        let (result, lines) = settle_number(2, |number| {
            number.set(number.get() - 1);
            if number.get() == 0 { Ok(()) } else { Err(failed()) }
        });
        result.unwrap();
        assert_eq!(lines, ["there: it was 1; repaired"]);
    }

    #[test]
    fn persistent_failure_is_an_error() {
        let (result, lines) = settle_number(2, |_| Err(failed()));
        assert!(result.unwrap_err().to_string().contains("no such file"));
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn undone_repair_is_an_error() {
        let (result, lines) = settle_number(7, |_| Ok(()));
        assert_eq!(
            result.unwrap_err().to_string(),
            "there: it was 7, even after 3 repairs; another program may be changing it continuously"
        );
        assert_eq!(lines.len(), 3);
    }
}
