// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Who writes on a redirected connection?  Its owner, or a process that is bound to the owner's identity.
 *
 * The connect hook does not see a forked child, a passed descriptor or a program run later using the socket; this check runs in
 * the sender's own context for every send.  A dropped send poisons the socket for everybody (the kernel keeps the verdict), which
 * is what should happen to a connection on which somebody else tried to speak.
 */
#ifndef CREDWIRE_SENDER_H
#define CREDWIRE_SENDER_H

enum { SEND_DROP = 0, SEND_PASS = 1 };	/* SK_DROP, SK_PASS */

INLINE __u32 bound_identity(const struct process_key *key, const struct subject *who)
{
	const struct process *entry = map_lookup(MAP(MAP_PROCS), key);
	__u32 identity;

	if (!entry || entry->state != STATE_BOUND)
		return 0;
	if (who && (entry->uid != who->uid || (entry->flags & PROCESS_SEEN) != who->flags))
		return 0;
	identity = entry->identity;
	asm volatile("" ::: "memory");
	return same_key(&entry->key, key) ? identity : 0;
}

INLINE int check_sender(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct record *record;
	struct place where = {};
	struct process_key owner;
	struct subject who;
	__u32 identity;

	if (!sk)
		return SEND_DROP;
	record = client_record(sk);
	if (!record)
		return SEND_PASS;	/* not redirected */
	read_subject(current_task(), &who);
	owner = record->owner;
	if (same_key(&owner, &who.key)) {
		if (who.uid == record->uid && who.flags == (record->flags & PROCESS_SEEN))
			return SEND_PASS;
	} else {
		identity = bound_identity(&who.key, &who);
		if (identity && identity == bound_identity(&owner, NULL))
			return SEND_PASS;
	}
	if (off_since(record->at_ns))
		return SEND_PASS;	/* it will bear no credential any more: nothing to keep */
	where.port = record->port;
	where.family = record->family;
	where.protocol = PROTOCOL_TCP;
	__builtin_memcpy(where.address, record->address, 16);
	if (record->flags & PROCESS_OBSERVED) {
		count(COUNT_OBSERVED);
		tell(EVENT_SPARED, REASON_SENDER_NOT_BOUND, STATE_UNKNOWN, &who.key, who.uid, 0, owner.tgid, record->cookie, &where);
		return SEND_PASS;
	}
	count(REASON_SENDER_NOT_BOUND);
	tell(EVENT_REFUSED, REASON_SENDER_NOT_BOUND, STATE_UNKNOWN, &who.key, who.uid, 0, owner.tgid, record->cookie, &where);
	return SEND_DROP;
}

#endif
