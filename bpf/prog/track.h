// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * exec, fork, exit: keep the table prompt.
 *
 * Nothing here is needed for a right answer at connect() except the script's name, which the kernel shows at exec only.  A missed
 * event makes a process less known, never better known.
 */
#ifndef CREDWIRE_TRACK_H
#define CREDWIRE_TRACK_H

#define CLONE_THREAD_FLAG 0x00010000ull
/* CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME */
#define CLONE_NAMESPACE_FLAGS 0x7e020080ull

/*
 * binfmt_script leaves the script's name, as given to execve(), in filename and puts the interpreter into interp; for every other
 * program the two are one pointer.
 */
INLINE __u32 script_of(void *bprm)
{
	struct script_key key = {};
	void *filename = NULL, *interp = NULL;
	const __u32 *id;
	long bytes;

	if (read_kernel(&filename, sizeof(filename), bprm + OFFSET_linux_binprm_filename))
		return 0;
	if (read_kernel(&interp, sizeof(interp), bprm + OFFSET_linux_binprm_interp))
		return 0;
	if (!filename || filename == interp)
		return 0;
	bytes = read_kernel_text(key.path, sizeof(key.path), filename);
	if (bytes <= 1 || bytes >= (long)sizeof(key.path))	/* cut off: a longer name must not match */
		return 0;
	id = map_lookup(MAP(MAP_SCRIPTS), &key);
	return id ? *id : 0;
}

/* sched_process_exec: (task, old pid, bprm); credentials, exec id and executable are the new program's */
INLINE void on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 filters = CONFIG->filters;
	struct judgement found = {};
	struct process_key before;
	__u32 script_id = 0;
	struct subject who;
	int tracked;

	if (shapes_of(filters) & SHAPES_WITH_SCRIPT)
		script_id = script_of((void *)ctx->args[2]);
	read_subject(current_task(), &who);
	before = who.key;
	before.exec_id -= 1;	/* begin_new_exec() adds exactly one */
	tracked = !map_delete(MAP(MAP_PROCS), &before);
	map_delete(MAP(MAP_STRANGERS), &before);
	who.script_id = script_id;
	judge(&who, filters, &found);
	if (found.full)
		count(COUNT_ENTRY_LOST);
	if (tracked)
		tell(EVENT_EXEC, REASON_GRANTED, found.state, &who.key, who.uid, script_id, 0, 0, NULL);
}

/* task_newtask: (task, clone flags); runs in the parent, before the child does */
INLINE void on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	const void *task = (const void *)ctx->args[0];
	__u64 clone_flags = ctx->args[1];
	const struct process *entry;
	struct process_key parent;
	__u32 map = MAP_PROCS;
	struct process child;

	if (clone_flags & CLONE_THREAD_FLAG)
		return;
	read_key(current_task(), &parent);
	entry = map_lookup(MAP(MAP_PROCS), &parent);
	if (!entry) {
		map = MAP_STRANGERS;
		entry = map_lookup(MAP(MAP_STRANGERS), &parent);
		if (!entry)
			return;
	}
	child = *entry;
	asm volatile("" ::: "memory");
	if (!same_key(&child.key, &parent) || !same_key(&entry->key, &parent))
		return;
	if (read_kernel(&child.key.tgid, sizeof(child.key.tgid), task + OFFSET_task_struct_tgid) ||
	    read_kernel(&child.key.start_ns, sizeof(child.key.start_ns), task + OFFSET_task_struct_start_boottime) ||
	    read_kernel(&child.key.exec_id, sizeof(child.key.exec_id), task + OFFSET_task_struct_self_exec_id))
		return;
	child.at_ns = now_ns();
	if (child.state == STATE_BOUND && (clone_flags & CLONE_NAMESPACE_FLAGS)) {
		child.state = STATE_PENDING;
		child.identity = 0;
	}
	if (map == MAP_STRANGERS) {
		map_update(MAP(MAP_STRANGERS), &child.key, &child, UPDATE_ANY);
		return;
	}
	if (map_update(MAP(MAP_PROCS), &child.key, &child, UPDATE_ANY)) {
		count(COUNT_ENTRY_LOST);
		return;
	}
	if (child.state == STATE_BOUND)
		count(COUNT_ATTESTED_FORK);
	tell(EVENT_FORK, REASON_GRANTED, child.state, &child.key, child.uid, child.script_id, parent.tgid, 0, NULL);
}

/* sched_process_exit: once a thread; the process is gone when no thread is left (signal->live was counted down before) */
INLINE void on_exit(void)
{
	void *task = current_task();
	void *signal = FIELD(void *, task, OFFSET_task_struct_signal);
	struct process_key key;

	if (!signal || FIELD(__u32, signal, OFFSET_signal_struct_live))
		return;
	read_key(task, &key);
	if (key.tgid == CONFIG->agent_tgid)
		CONFIG->heartbeat_ns = 0;
	map_delete(MAP(MAP_STRANGERS), &key);
	if (!map_delete(MAP(MAP_PROCS), &key))
		tell(EVENT_EXIT, REASON_GRANTED, STATE_UNKNOWN, &key, 0, 0, 0, 0, NULL);
}

#endif
