// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Who is running right now: read from the task itself.
 *
 * In: OFFSET_* from the running kernel's BTF (bpf/btf.py), given by the compiler's command line.  Out: struct subject.
 * bpf_get_current_task_btf() yields a pointer that the verifier lets us walk with plain loads; it wants each pointer checked
 * before the next step (since Linux 6.4 exe_file and others may be NULL to it).
 */
#ifndef CREDWIRE_TASK_H
#define CREDWIRE_TASK_H

#define FIELD(type, base, offset) (*(type *)((void *)(base) + (offset)))

struct subject {
	struct process_key key;
	__u64 exe_ino;
	__u32 exe_dev;
	__u32 uid;
	__u32 gid;
	__u32 script_id;	/* filled by the judge */
	__u32 flags;		/* the PROCESS_SEEN ones */
	__u32 pad;
};

/*
 * real_cred, not cred: io_uring's personalities and override_creds() change only the latter, /proc shows the former, and the
 * facts that user space reads must be the same ones.
 */
INLINE void read_credentials(void *task, struct subject *who)
{
	void *cred = FIELD(void *, task, OFFSET_task_struct_real_cred);
	void *userns;

	if (!cred)
		return;
	who->uid = FIELD(__u32, cred, OFFSET_cred_euid);
	who->gid = FIELD(__u32, cred, OFFSET_cred_egid);
	userns = FIELD(void *, cred, OFFSET_cred_user_ns);
	if (!userns || FIELD(__u32, userns, OFFSET_user_namespace_ns_inum) != CONFIG->userns)
		who->flags |= PROCESS_FOREIGN_USERNS;
}

INLINE void read_namespaces(void *task, struct subject *who)
{
	void *proxy = FIELD(void *, task, OFFSET_task_struct_nsproxy);
	void *mntns;

	if (!proxy) {
		who->flags |= PROCESS_FOREIGN_MNTNS;
		return;
	}
	mntns = FIELD(void *, proxy, OFFSET_nsproxy_mnt_ns);
	if (!mntns || FIELD(__u32, mntns, OFFSET_mnt_namespace_ns_inum) != CONFIG->mntns)
		who->flags |= PROCESS_FOREIGN_MNTNS;
}

INLINE void read_executable(void *task, struct subject *who)
{
	void *mm = FIELD(void *, task, OFFSET_task_struct_mm);
	void *file, *inode, *super;

	if (!mm)
		return;	/* a kernel thread, or one that is past exit_mm() */
	file = FIELD(void *, mm, OFFSET_mm_struct_exe_file);
	if (!file)
		return;
	inode = FIELD(void *, file, OFFSET_file_f_inode);
	if (!inode)
		return;
	super = FIELD(void *, inode, OFFSET_inode_i_sb);
	if (!super)
		return;
	who->exe_ino = FIELD(__u64, inode, OFFSET_inode_i_ino);
	who->exe_dev = FIELD(__u32, super, OFFSET_super_block_s_dev);
}

/* The key alone: what a sender is compared by. */
INLINE void read_key(void *task, struct process_key *key)
{
	void *leader = FIELD(void *, task, OFFSET_task_struct_group_leader);

	key->tgid = FIELD(__u32, task, OFFSET_task_struct_tgid);
	key->exec_id = FIELD(__u64, task, OFFSET_task_struct_self_exec_id);
	key->start_ns = leader ? FIELD(__u64, leader, OFFSET_task_struct_start_boottime) : 0;
	key->pad = 0;
}

INLINE void read_subject(void *task, struct subject *who)
{
	__builtin_memset(who, 0, sizeof(*who));
	read_key(task, &who->key);
	if (FIELD(__u32, task, OFFSET_task_struct_ptrace))
		who->flags |= PROCESS_TRACED;
	read_credentials(task, who);
	read_namespaces(task, who);
	read_executable(task, who);
}

INLINE int same_key(const struct process_key *a, const struct process_key *b)
{
	return a->tgid == b->tgid && a->start_ns == b->start_ns && a->exec_id == b->exec_id;
}

#endif
