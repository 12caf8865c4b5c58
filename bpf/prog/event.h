// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Tell user space: the ring buffer carries hints, the counters tell what was lost.
 */
#ifndef CREDWIRE_EVENT_H
#define CREDWIRE_EVENT_H

struct place {
	__u8 address[16];
	__u16 port;
	__u8 family;
	__u8 protocol;
	__u32 pad;
};

INLINE void tell(__u32 kind, __u32 reason, __u32 state, const struct process_key *subject, __u32 uid, __u32 script_id,
		 __u32 other_tgid, __u64 cookie, const struct place *where)
{
	struct event *event = ring_reserve(MAP(MAP_EVENTS), sizeof(*event), 0);

	if (!event) {
		count(COUNT_EVENT_LOST);
		return;
	}
	event->subject = *subject;
	event->cookie = cookie;
	event->at_ns = now_ns();
	event->tid = (__u32)current_pid_tgid();
	event->uid = uid;
	event->script_id = script_id;
	event->other_tgid = other_tgid;
	event->kind = kind;
	event->reason = reason;
	event->state = state;
	event->pad = 0;
	if (where) {
		event->port = where->port;
		event->family = where->family;
		event->protocol = where->protocol;
		__builtin_memcpy(event->address, where->address, 16);
	} else {
		event->port = 0;
		event->family = 0;
		event->protocol = 0;
		__builtin_memset(event->address, 0, 16);
	}
	ring_submit(event, 0);
}

#endif
