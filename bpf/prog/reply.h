// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * getsockopt() on an accepted socket: the record, and how its owner stands right now.
 *
 * Attached to the daemon's own cgroup only, where it is the cheapest way for an unprivileged worker to ask the kernel: one system
 * call on a descriptor that it holds anyway, in the shape of SO_ORIGINAL_DST.
 */
#ifndef CREDWIRE_REPLY_H
#define CREDWIRE_REPLY_H

#define LEVEL_IP 0		/* SOL_IP */
#define LEVEL_IPV6 41		/* SOL_IPV6 */
#define OPTION_RECORD 80	/* SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST */

INLINE int reply(volatile struct bpf_sockopt *ctx)
{
	const struct process *entry;
	struct record *record;
	struct process_key owner;
	struct answer *answer;
	struct bpf_sock *sk;

	if (ctx->optname != OPTION_RECORD || (ctx->level != LEVEL_IP && ctx->level != LEVEL_IPV6))
		return PASS;
	sk = ctx->sk;
	if (!sk)
		return PASS;
	record = storage_get(MAP(MAP_ACCEPTED), sk, NULL, 0);
	if (!record)
		return PASS;	/* the kernel's own answer stands; its length tells it apart */
	answer = ctx->optval;
	if ((void *)(answer + 1) > ctx->optval_end)
		return PASS;
	__builtin_memset(answer, 0, sizeof(*answer));
	answer->record = *record;
	answer->revision = CONFIG->revision;
	answer->reason = REASON_PROCESS_CHANGED;
	owner = record->owner;
	entry = map_lookup(MAP(MAP_PROCS), &owner);
	if (entry) {
		answer->identity = entry->identity;
		answer->state = entry->state;
		answer->flags = entry->flags;
		answer->current = entry->generation == generation_of(CONFIG->filters);
		answer->reason = REASON_GRANTED;
		asm volatile("" ::: "memory");
		if (!same_key(&entry->key, &owner)) {
			answer->identity = 0;
			answer->state = STATE_UNKNOWN;
			answer->flags = 0;
			answer->current = 0;
			answer->reason = REASON_PROCESS_CHANGED;
		}
	}
	if (!daemon_alive())
		answer->reason = REASON_DAEMON_DOWN;
	if (!(answer->record.flags & PROCESS_OBSERVED) && off_since(answer->record.at_ns))
		answer->reason = REASON_OFF_MEANWHILE;
	ctx->optlen = sizeof(*answer);
	ctx->retval = 0;
	return PASS;
}

#endif
