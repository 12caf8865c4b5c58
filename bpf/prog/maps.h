// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * The way to every map.
 *
 * MAP(n) becomes a 16-byte load that the loader fills with a descriptor; config and switch are reached by their addresses (no
 * look-up), which BPF_PSEUDO_MAP_VALUE gives for an array of one element.
 */
#ifndef CREDWIRE_MAPS_H
#define CREDWIRE_MAPS_H

#define MAP(number) ((void *)bpf_pseudo_fd(1, (number)))		/* BPF_PSEUDO_MAP_FD */
#define CONFIG ((volatile struct config *)bpf_pseudo_fd(2, MAP_CONFIG))	/* BPF_PSEUDO_MAP_VALUE */
#define SWITCH ((volatile struct off_switch *)bpf_pseudo_fd(2, MAP_SWITCH))

INLINE __u32 generation_of(__u64 filters)
{
	return filters >> 32;
}

INLINE __u32 shapes_of(__u64 filters)
{
	return (__u32)filters;
}

INLINE void count(__u32 what)
{
	__u64 *n = map_lookup(MAP(MAP_COUNTERS), &what);

	if (n)
		*n += 1;	/* per CPU: no other writer but an interrupt's, which may cost one count */
}

/*
 * The record of a client's socket; void ones (port 0) are kept because a socket stays in the sockhash until it is closed, also over
 * connect(AF_UNSPEC), and cannot be put there twice.
 */
INLINE struct record *client_record(void *sk)
{
	struct record *record = storage_get(MAP(MAP_CLIENTS), sk, NULL, 0);

	return record && record->port ? record : NULL;
}

/* Alive and not hung?  A beat that arrives between the two loads makes the age negative: fresh. */
INLINE int daemon_alive(void)
{
	__u64 beat = CONFIG->heartbeat_ns;

	if (!beat)
		return 0;
	return (__s64)(now_ns() - beat) < (__s64)CONFIG->stale_ns;
}

/* Somebody threw the switch: nothing is to be touched.  Who never threw it pays one load. */
INLINE int switched_off(void)
{
	__u64 until = SWITCH->off_until_ns;

	return until && until > now_ns();
}

/*
 * Were we off at any time since then?  A connection from before gets no credential any more, not even when we are on again: while we
 * are off, anybody who holds its socket may write on it.
 */
INLINE int off_since(__u64 at_ns)
{
	return at_ns < SWITCH->off_until_ns;
}

#endif
