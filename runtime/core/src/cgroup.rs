//! Memory accounting of this process's control group, which tells whether the kernel's OOM killer
//! ended a child.

use std::path::{Path, PathBuf};

/// Memory counters of a control group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMemory {
    /// Path of the group in the hierarchy: `/system.slice/heddled.service`.
    group: String,
    /// Number of processes in the group, or below it, that the OOM killer has ended.
    kills: u64,
    /// Limit in bytes. None if the group has no limit of its own.
    limit: Option<u64>,
}

/// File names of one version of the cgroup interface (Documentation/admin-guide/cgroup-v2.rst and
/// cgroup-v1/memory.rst).
struct Layout {
    kills: &'static str,
    limit: &'static str,
}

const V1: Layout = Layout { kills: "memory.oom_control", limit: "memory.limit_in_bytes" };
const V2: Layout = Layout { kills: "memory.events", limit: "memory.max" };

/// Version 1 reports "no limit" as a number: the largest multiple of the page size.
const UNLIMITED: u64 = 1 << 62;

impl GroupMemory {
    /// Reads the memory counters of this process's control group. `read` returns the text of a
    /// file, if it can be read. Returns None if the kernel does not account memory, or does not
    /// expose it.
    pub fn read(read: impl Fn(&Path) -> Option<String>) -> Option<Self> {
        let groups = read(Path::new("/proc/self/cgroup"))?;
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let (group, directory, layout) = find(&groups, &mounts)?;
        let kills = number_after("oom_kill ", &read(&directory.join(layout.kills))?)?;
        let limit = read(&directory.join(layout.limit)).and_then(|text| text.trim().parse().ok());
        Some(Self { group, kills, limit: limit.filter(|limit| *limit < UNLIMITED) })
    }
}

/// Returns why a child was ended by a SIGKILL that this process did not send, and what to do about
/// it. `before` and `after` are the counters before the child was started and after it ended.
pub fn explain_kill(before: Option<&GroupMemory>, after: Option<&GroupMemory>) -> String {
    let killed = |after: &&GroupMemory| before.is_some_and(|before| before.kills < after.kills);
    match after.filter(killed) {
        Some(GroupMemory { group, limit: Some(limit), .. }) => format!(
            "the kernel's OOM killer ended it, control group {group} is limited to {} MiB; raise the limit (MemoryMax= of the unit)",
            limit >> 20
        ),
        Some(GroupMemory { group, limit: None, .. }) => format!(
            "the kernel's OOM killer ended it, a control group above {group} or the host is out of memory; free some, or raise the limit"
        ),
        None => "probably the kernel's OOM killer ended it, out of memory; see the kernel log, and raise the limit (MemoryMax= \
                 of the unit) or free memory"
            .to_owned(),
    }
}

/// Finds the group that memory is accounted in, the directory of its files, and their names.
fn find(groups: &str, mounts: &str) -> Option<(String, PathBuf, Layout)> {
    // `4:memory:/path` in version 1, `0::/path` in version 2.
    let group_of = |wanted: fn(&str, &str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(id, controllers).then_some(path)
        })
    };
    let v1 = group_of(|_, controllers| controllers.split(',').any(|name| name == "memory"));
    let (group, kind, layout) = match v1 {
        Some(group) => (group, "cgroup", V1),
        None => (group_of(|id, _| id == "0")?, "cgroup2", V2),
    };
    let directory = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let (root, point) = {
            let mut fields = before.split(' ').skip(3);
            (fields.next()?, fields.next()?)
        };
        let mut fields = after.split(' ');
        let (found, options) = (fields.next()?, fields.nth(1)?);
        let fits =
            found == kind && (kind == "cgroup2" || options.split(',').any(|o| o == "memory"));
        // A container sees only the part of the hierarchy below its root.
        let below = Path::new(group).strip_prefix(root).ok()?;
        fits.then(|| Path::new(point).join(below))
    })?;
    Some((group.to_owned(), directory, layout))
}

fn number_after(name: &str, text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Reads the memory counters from these files: pairs of path and content.
    fn read(files: &[(&str, &str)]) -> Option<GroupMemory> {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        GroupMemory::read(|path| files.get(path.to_str()?).map(|text| (*text).to_owned()))
    }

    fn memory(kills: u64, limit: Option<u64>) -> GroupMemory {
        GroupMemory { group: "/system.slice/heddled.service".into(), kills, limit }
    }

    #[test]
    fn unit_memory_is_read_from_cgroup_v2() {
        let found = read(&[
            ("/proc/self/cgroup", "0::/system.slice/heddled.service\n"),
            (
                "/proc/self/mountinfo",
                "22 1 0:20 / /proc rw,nosuid - proc proc rw\n\
                 30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
            ),
            (
                "/sys/fs/cgroup/system.slice/heddled.service/memory.events",
                "low 0\nhigh 0\nmax 7\noom 1\noom_kill 3\noom_group_kill 0\n",
            ),
            ("/sys/fs/cgroup/system.slice/heddled.service/memory.max", "33554432\n"),
        ]);
        assert_eq!(found, Some(memory(3, Some(32 << 20))));
    }

    #[test]
    fn container_memory_is_read_from_cgroup_v1() {
        let mut files = vec![
            ("/proc/self/cgroup", "5:cpu:/\n4:memory:/pod/7\n0::/\n"),
            (
                "/proc/self/mountinfo",
                "40 24 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                 41 24 0:31 /pod /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            ),
            (
                "/sys/fs/cgroup/memory/7/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
        ];
        let expected = GroupMemory { group: "/pod/7".into(), kills: 2, limit: None };
        assert_eq!(read(&files), Some(expected.clone()));
        files.push(("/sys/fs/cgroup/memory/7/memory.limit_in_bytes", "9223372036854771712\n"));
        assert_eq!(read(&files), Some(expected));
    }

    #[test]
    fn unexposed_memory_is_none() {
        assert_eq!(read(&[]), None);
        assert_eq!(
            read(&[
                ("/proc/self/cgroup", "0::/a\n"),
                ("/proc/self/mountinfo", "30 24 0:26 / /c rw - cgroup2 cgroup2 rw\n"),
            ]),
            None
        );
    }

    #[test]
    fn kill_is_blamed_on_oom_killer_if_its_counter_rose() {
        let (before, after) = (memory(1, Some(32 << 20)), memory(2, Some(32 << 20)));
        let sure = explain_kill(Some(&before), Some(&after));
        assert!(sure.contains("/system.slice/heddled.service is limited to 32 MiB"), "{sure}");
        let above = explain_kill(Some(&memory(1, None)), Some(&memory(2, None)));
        assert!(above.starts_with("the kernel's OOM killer ended it, a control group"), "{above}");
        for (before, after) in [(Some(&before), Some(&before)), (None, Some(&after)), (None, None)]
        {
            let unsure = explain_kill(before, after);
            assert!(unsure.starts_with("probably"), "{unsure}");
        }
    }
}
