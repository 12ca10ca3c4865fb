//! The memory that the process may use: the limit of its cgroup, as containers and systemd set it,
//! or the memory of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The memory that this process may use, in bytes; `None` when it is unknown.
pub(super) fn read() -> Option<u64> {
    read_below(Path::new("/"))
}

/// Like [`read`], with the files below another root folder.
fn read_below(root: &Path) -> Option<u64> {
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = cgroups.lines().filter_map(limit_file).flat_map(|(mount, path, file_name)| {
        let mount = root.join(mount);
        // The limits of the parent cgroups apply too. In a container, the path may be that of the
        // host, which does not exist in the container. Then the mount itself, the last of the
        // ancestors, is the cgroup of the container.
        let folders = path.ancestors().map(|folder| mount.join(folder)).collect::<Vec<PathBuf>>();
        folders.into_iter().filter_map(move |folder| read_number(&folder.join(file_name)))
    });
    limits.chain(machine_memory(root)).min()
}

/// The mount of a line of `/proc/self/cgroup`, the path below it, and the name of the file with the
/// limit: `0::/path` for version 2, and `5:memory:/path` for version 1.
fn limit_file(line: &str) -> Option<(&'static str, PathBuf, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let path = PathBuf::from(path.trim_start_matches('/'));
    if number == "0" && controllers.is_empty() {
        Some(("sys/fs/cgroup", path, "memory.max"))
    } else if controllers.split(',').any(|controller| controller == "memory") {
        Some(("sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
    } else {
        None
    }
}

/// Reads the number in a file; `None` when the file contains the word `max`, which means no limit.
fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The total memory of the machine, in bytes.
fn machine_memory(root: &Path) -> Option<u64> {
    let info = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// The limit on a system with these files.
    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, content).expect("written");
        }
        read_below(root.path())
    }

    /// A machine with 16 GiB of memory.
    const MACHINE: (&str, &str) =
        ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1024 kB\n");

    /// N41: the smallest limit of the cgroups above the process applies.
    #[test]
    fn the_limit_of_a_cgroup_of_version_2_applies() {
        let service_files = [
            MACHINE,
            ("proc/self/cgroup", "0::/system.slice/tenantry.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/system.slice/tenantry.service/memory.max", "max\n"),
        ];
        assert_eq!(limit(&service_files), Some(2 * GIB));
        let container_files =
            [MACHINE, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "1073741824\n")];
        assert_eq!(limit(&container_files), Some(GIB));
        let container_files_with_host_path = [
            MACHINE,
            ("proc/self/cgroup", "0::/kubepods/pod7/c9\n"),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
        ];
        assert_eq!(limit(&container_files_with_host_path), Some(GIB));
    }

    /// N41: the same for version 1, which writes a very large number for no limit.
    #[test]
    fn the_limit_of_a_cgroup_of_version_1_applies() {
        let cgroups = "12:pids:/docker/c9\n5:cpu,memory:/docker/c9\n0::/docker/c9\n";
        let file = "sys/fs/cgroup/memory/docker/c9/memory.limit_in_bytes";
        let limit_with =
            |limit_text| limit(&[MACHINE, ("proc/self/cgroup", cgroups), (file, limit_text)]);
        assert_eq!(limit_with("536870912\n"), Some(GIB / 2));
        assert_eq!(limit_with("9223372036854771712\n"), Some(16 * GIB));
    }

    #[test]
    fn without_a_cgroup_the_memory_of_the_machine_applies() {
        assert_eq!(limit(&[MACHINE]), Some(16 * GIB));
        assert_eq!(limit(&[MACHINE, ("proc/self/cgroup", "0::/\n")]), Some(16 * GIB));
        assert_eq!(limit(&[]), None);
    }
}
