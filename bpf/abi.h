// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * The kernel boundary: every number and struct that BPF programs and user space share.
 *
 * Twin: bpf/abi.py.  Structs are widest-first and padded by hand, so that both compilers agree without "packed".
 * Addresses are always 16 bytes in network byte order, IPv4 as ::ffff:a.b.c.d; ports are in host byte order.
 * Times are bpf_ktime_get_ns() (CLOCK_MONOTONIC) except start_ns, which is task->start_boottime (CLOCK_BOOTTIME).
 */
#ifndef CREDWIRE_ABI_H
#define CREDWIRE_ABI_H

/* Maps, numbered; bpf/maps.py has their shapes in this order.  The loader replaces the number by a descriptor. */
enum map_number {
	MAP_CONFIG = 0,
	MAP_ABOUT = 1,
	MAP_PORTS = 2,
	MAP_EXCLUDED = 3,
	MAP_FILTERS = 4,
	MAP_SCRIPTS = 5,
	MAP_PROCS = 6,
	MAP_STRANGERS = 7,
	MAP_CLIENTS = 8,
	MAP_HANDOFF = 9,
	MAP_ACCEPTED = 10,
	MAP_SENDERS = 11,
	MAP_EVENTS = 12,
	MAP_COUNTERS = 13,
	MAP_SWITCH = 14,
};

/* Why the kernel refused; the same words as control/reason.py's "kernel's" group. */
enum kernel_reason {
	REASON_GRANTED = 0,
	REASON_DAEMON_DOWN = 1,
	REASON_NETNS_UNSERVED = 2,
	REASON_PROTOCOL_UNSUPPORTED = 3,
	REASON_TABLE_FULL = 4,
	REASON_SENDER_NOT_BOUND = 5,
	REASON_PORT_GUARDED = 6,
	REASON_NO_RECORD = 7,
	REASON_PROCESS_CHANGED = 8,
	REASON_SOCKET_BUSY = 9,
	REASON_OFF_MEANWHILE = 10,
};

/* Per-CPU counters: one for each reason, under the reason's own number, then these. */
enum counter {
	COUNT_REDIRECTED = 16,		/* connections handed to the listener */
	COUNT_DIRECT = 17,		/* let through because the daemon is down and the binding says direct */
	COUNT_ATTESTED_FORK = 18,	/* children that took over a bound parent's entry */
	COUNT_EVENT_LOST = 19,		/* ring buffer full */
	COUNT_HANDOFF_LOST = 20,	/* record could not be published before the SYN */
	COUNT_ACCEPT_LOST = 21,		/* record could not be kept on the accepted socket */
	COUNT_SENDER_UNCHECKED = 22,	/* sockhash refused the socket; its record was withdrawn */
	COUNT_DEVICE_KEPT = 23,		/* bpf_setsockopt(SO_BINDTOIFINDEX) failed */
	COUNT_ENTRY_LOST = 24,		/* process table full at exec or fork */
	COUNT_OBSERVED = 25,		/* let through because the process is only observed; it would have been refused */
	COUNT_OFF = 26,			/* let through because we are switched off; it would have been redirected or refused */
	COUNT_MAX = 32,
};

enum process_state {
	STATE_UNKNOWN = 0,	/* not in the table */
	STATE_UNBOUND = 1,	/* goes straight on */
	STATE_PENDING = 2,	/* a filter hit; user space has not said yet who it is */
	STATE_BOUND = 3,	/* user space attested it: see identity */
};

/* What a filter looks at.  A shape is a set of these; config.filters says which shapes occur. */
enum filter_part {
	PART_EXE = 1,
	PART_UID = 2,
	PART_SCRIPT = 4,
};

enum filter_flag {
	FILTER_MATCH = 1,		/* a process with this key is PENDING; without it the executable is merely listed */
	FILTER_DIRECT_WHEN_DOWN = 2,	/* with the daemon down: pass, without a credential */
	FILTER_OBSERVE = 4,		/* record its connections, refuse nothing */
};

/* Facts beside uid and executable that decisions need; seen in the task at exec, connect and send. */
enum process_flag {
	PROCESS_TRACED = 1,		/* the connecting thread has a tracer */
	PROCESS_FOREIGN_USERNS = 2,	/* its credentials live in another user namespace than the daemon's */
	PROCESS_FOREIGN_MNTNS = 4,	/* it sees another mount namespace than the daemon */
	PROCESS_SEEN = 7,		/* mask of the above: a change makes the kernel ask again */
	PROCESS_DIRECT_WHEN_DOWN = 8,	/* every filter that hit says so */
	PROCESS_OBSERVED = 16,		/* every filter that hit says so: redirected while the daemon lives, never refused */
};

enum event_kind {
	EVENT_PENDING = 1,	/* a filter hit: attest it */
	EVENT_EXEC = 2,		/* a tracked process runs another program now; exec_id is the new one */
	EVENT_EXIT = 3,		/* a tracked process ended */
	EVENT_FORK = 4,		/* a tracked process forked; subject is the child */
	EVENT_REFUSED = 5,	/* connect, sendmsg, bind or send refused: see reason */
	EVENT_SPARED = 6,	/* would have been refused, but the process is only observed: see reason */
};

/* One program in one process. */
struct process_key {
	__u64 start_ns;		/* task->group_leader->start_boottime */
	__u64 exec_id;		/* task->self_exec_id: counts successful execs */
	__u32 tgid;		/* in the initial pid namespace */
	__u32 pad;
};

/* The one element of MAP_CONFIG; mapped into user space, each field written by one aligned store. */
struct config {
	__u64 heartbeat_ns;	/* of the agent's last beat; 0 = dead */
	__u64 stale_ns;		/* a heartbeat older than this counts as dead */
	__u64 filters;		/* generation << 32 | bit mask of the shapes in use: one load, so both are of one set */
	__u64 netns_cookie;	/* of the listener */
	__u64 daemon_cgroup;	/* id of the cgroup whose processes are exempt */
	__u32 agent_tgid;	/* whose exit zeroes the heartbeat */
	__u32 revision;		/* of the resource set */
	__u32 mntns;		/* inode number of the daemon's mount namespace */
	__u32 userns;		/* inode number of the daemon's user namespace */
	__u32 next_script;	/* next script id to give; ids are never given twice */
	__u16 port4;		/* of the IPv4 listener; 0 = none */
	__u16 port6;		/* of the IPv6 listener; 0 = none */
	__u8 enforce;		/* 0 = everything passes */
	__u8 pad[7];
};

/*
 * The one element of MAP_SWITCH.  Its shape never changes: builds of every layout share the map, so that "off" outlives them all, and
 * a tool of another build may throw it.
 */
struct off_switch {
	__u64 off_until_ns;	/* until then everything passes untouched; all ones = for ever; 0 or past = on, and last off until then */
};

/* The one element of MAP_ABOUT: what is pinned here. */
struct about {
	__u8 layout[32];	/* SHA-256 over abi.h and the map shapes */
	__u8 build[32];		/* SHA-256 that the bytecode cache is keyed by */
};

/* Key of MAP_FILTERS; parts that the shape does not look at are 0. */
struct filter_key {
	__u64 exe_ino;
	__u32 exe_dev;		/* kernel's encoding: major << 20 | minor */
	__u32 uid;
	__u32 script_id;
	__u32 generation;
	__u32 shape;		/* enum filter_part, ORed */
	__u32 pad;
};

struct filter_value {
	__u32 flags;		/* enum filter_flag */
	__u32 pad;
};

/* Key of MAP_EXCLUDED; the prefix counts the generation's 32 bits too. */
struct network_key {
	__u32 prefix_bits;
	__u32 generation;
	__u8 address[16];
};

/* One element of MAP_PORTS (one for even, one for odd generations). */
struct port_bits {
	__u64 words[1024];
};

struct script_key {
	char path[256];		/* as given to execve, zero padded */
};

/* Value of MAP_PROCS (PENDING, BOUND, or settled UNBOUND) and MAP_STRANGERS (UNBOUND). */
struct process {
	struct process_key key;	/* again, so that a reader can tell a slot that was reused under its eyes */
	__u64 exe_ino;
	__u64 at_ns;		/* when it was judged */
	__u32 exe_dev;
	__u32 uid;		/* effective, task->real_cred */
	__u32 gid;		/* effective, task->real_cred */
	__u32 script_id;	/* 0 = no listed script, or exec not seen */
	__u32 generation;	/* of the filters that judged it */
	__u32 identity;		/* user space's number; 0 unless BOUND */
	__u8 flags;		/* enum process_flag */
	__u8 state;		/* enum process_state */
	__u8 pad[6];
};

/* Who connected where: written at connect(), carried by the socket, readable from the accepted one. */
struct record {
	struct process_key owner;
	__u64 cookie;		/* of the client's socket: what sock_diag destroys by */
	__u64 at_ns;
	__u32 tid;		/* the connecting thread */
	__u32 uid;		/* effective, task->real_cred */
	__u32 gid;		/* effective, task->real_cred */
	__u32 script_id;
	__u32 generation;
	__u32 revision;
	__u32 mark;		/* SO_MARK of the client's socket */
	__u32 ifindex;		/* SO_BINDTODEVICE of the client's socket, before we moved it to lo */
	__u16 port;		/* original destination; 0: void, the socket went elsewhere since */
	__u8 family;		/* of the client's socket: AF_INET 2, AF_INET6 10 */
	__u8 flags;		/* enum process_flag: the seen ones, and OBSERVED */
	__u8 guarded;		/* the client's socket is under the sender check, until it is closed */
	__u8 pad[3];
	__u8 address[16];	/* original destination */
};

/* What getsockopt(SOL_IP or SOL_IPV6, 80) answers on an accepted socket. */
struct answer {
	struct record record;
	__u32 identity;		/* of the owner's live entry */
	__u32 revision;		/* in force now */
	__u8 reason;		/* enum kernel_reason: GRANTED, DAEMON_DOWN, PROCESS_CHANGED or OFF_MEANWHILE */
	__u8 state;		/* of the owner's live entry */
	__u8 current;		/* 1: the live entry was judged by the filters in force now */
	__u8 flags;		/* of the live entry */
	__u8 pad[4];
};

/* Key of MAP_HANDOFF: a connection as the listener's side sees it. */
struct tuple {
	__u64 netns_cookie;
	__u16 client_port;
	__u16 listener_port;
	__u8 pad[4];
	__u8 client[16];
	__u8 listener[16];
};

/* One element of the ring buffer: a hint, never the truth (it may be lost). */
struct event {
	struct process_key subject;
	__u64 cookie;		/* of the socket; 0 for process events */
	__u64 at_ns;
	__u32 tid;
	__u32 uid;
	__u32 script_id;
	__u32 other_tgid;	/* EVENT_FORK: the parent; sender-not-bound: the owner */
	__u16 port;
	__u8 kind;		/* enum event_kind */
	__u8 reason;		/* enum kernel_reason */
	__u8 state;		/* enum process_state */
	__u8 family;
	__u8 protocol;
	__u8 pad;
	__u8 address[16];
};

#endif
