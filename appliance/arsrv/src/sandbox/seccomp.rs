//! System calls that no service has any business with (seccomp).
//!
//! A list of what is refused, not of what is allowed: services bring libraries of every kind, and a list of
//! what they may use would break one of them with each new release of libc.  Refused calls fail with `EPERM`,
//! so a library that merely probes goes on.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Looking into other processes.
const OTHER_PROCESSES: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// Another view of the file system.
const MOUNTS: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
];

/// The kernel and the box itself.
const KERNEL: &[i64] = &[
    libc::SYS_bpf,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Parts of the kernel with a long history of holes, and the kernel's own keys.
const RISKY: &[i64] = &[
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

#[cfg(target_arch = "x86_64")]
const OF_THE_PROCESSOR: &[i64] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const OF_THE_PROCESSOR: &[i64] = &[];

/// Socket families that are never needed.
const FAMILIES: &[i32] = &[
    libc::AF_PACKET,
    libc::AF_KEY,
    libc::AF_ALG,
    libc::AF_VSOCK,
    libc::AF_RDS,
    libc::AF_TIPC,
    libc::AF_BLUETOOTH,
    libc::AF_CAN,
    libc::AF_XDP,
];

/// Socket families of a network of its own.
const INTERNET: &[i32] = &[libc::AF_INET, libc::AF_INET6];

const NEW_NAMESPACES: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Calls with this bit are those of the x32 ABI; they pass the check of the architecture.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters the calling thread's system calls for good.
pub(super) fn apply(network: bool) -> Result<(), String> {
    let install = || -> Result<(), seccompiler::Error> {
        let refused = program(refused(network)?, libc::EPERM)?;
        // clone3 passes its flags in memory, where a filter cannot look; without it libc takes clone.
        let unknown =
            program(with_x32(Rules::from([(libc::SYS_clone3, Vec::new())])), libc::ENOSYS)?;
        seccompiler::apply_filter(&unknown)?;
        seccompiler::apply_filter(&refused)
    };
    install().map_err(|err| format!("the filter cannot be set: {}", arbase::Chain(&err)))
}

fn refused(network: bool) -> Result<Rules, seccompiler::BackendError> {
    let always = [OTHER_PROCESSES, MOUNTS, KERNEL, RISKY, OF_THE_PROCESSOR].concat();
    let mut rules: Rules = always.into_iter().map(|call| (call, Vec::new())).collect();
    let mut families = FAMILIES.to_vec();
    if !network {
        families.extend(INTERNET);
    }
    let equal = |family: i32| first_argument(SeccompCmpOp::Eq, bits(family));
    rules.insert(libc::SYS_socket, families.into_iter().map(equal).collect::<Result<_, _>>()?);
    let has = |flag: i32| first_argument(SeccompCmpOp::MaskedEq(bits(flag)), bits(flag));
    rules.insert(
        libc::SYS_clone,
        NEW_NAMESPACES.iter().copied().map(has).collect::<Result<_, _>>()?,
    );
    Ok(with_x32(rules))
}

fn first_argument(
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value)?])
}

fn bits(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}

#[cfg(target_arch = "x86_64")]
fn with_x32(mut rules: Rules) -> Rules {
    let twins: Vec<_> = rules.iter().map(|(call, when)| (call | X32, when.clone())).collect();
    rules.extend(twins);
    rules
}

#[cfg(not(target_arch = "x86_64"))]
fn with_x32(rules: Rules) -> Rules {
    rules
}

fn program(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let action = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_can_be_made_for_this_processor_with_and_without_network() {
        for network in [true, false] {
            assert!(!program(refused(network).unwrap(), libc::EPERM).unwrap().is_empty());
        }
    }

    #[test]
    fn the_internet_is_refused_only_where_workers_have_no_network() {
        let families = |network| refused(network).unwrap()[&libc::SYS_socket].len();
        assert_eq!(families(false), families(true) + INTERNET.len());
    }
}
