// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * connect(), sendmsg(), bind() and getpeername(): where bytes may go.
 *
 * A connection of interest to a listed process is handed to the listener with a record of its owner, refused with a reason, or
 * goes on untouched; in the last case a record left over from an earlier connect() on the same socket is removed.  Whoever is only
 * observed is handed over too, and where others are refused goes on untouched.
 */
#ifndef CREDWIRE_CONNECT_H
#define CREDWIRE_CONNECT_H

#define LEVEL_SOCKET 1		/* SOL_SOCKET */
#define OPTION_BINDTOIFINDEX 62	/* SO_BINDTOIFINDEX */
#define IFINDEX_LO 1		/* LOOPBACK_IFINDEX: the same in every network namespace */

INLINE int is_mapped(const __u8 *address)
{
	const __u32 *words = (const __u32 *)address;

	return !words[0] && !words[1] && words[2] == SWAP32(0xffff);
}

/* 64:ff9b::/96, RFC 6052 */
INLINE int is_nat64(const __u8 *address)
{
	const __u32 *words = (const __u32 *)address;

	return words[0] == SWAP32(0x0064ff9b) && !words[1] && !words[2];
}

INLINE int port_of_interest(__u16 port, __u64 filters)
{
	__u32 bank = generation_of(filters) & 1;
	const struct port_bits *bits = map_lookup(MAP(MAP_PORTS), &bank);

	return bits && (bits->words[(port >> 6) & 1023] >> (port & 63)) & 1;
}

INLINE int network_excluded(const struct place *to, __u64 filters)
{
	struct network_key key = { .prefix_bits = 32 + 128, .generation = generation_of(filters) };
	__u32 *words = (__u32 *)key.address;

	__builtin_memcpy(key.address, to->address, 16);
	if (is_nat64(to->address)) {
		words[0] = 0;
		words[1] = 0;
		words[2] = SWAP32(0xffff);
	}
	return map_lookup(MAP(MAP_EXCLUDED), &key) != NULL;
}

/* 127.1.h.h, so that one source port can still reach several destinations at once. */
INLINE __u32 listener_ip4(const __u8 *address, __u16 port)
{
	const __u32 *words = (const __u32 *)address;
	__u32 mixed = (words[3] ^ words[2] ^ words[1] ^ words[0] ^ port) * 0x9e3779b1u;

	return SWAP32(0x7f010000u | (mixed >> 16));
}

INLINE void read_place4(volatile struct bpf_sock_addr *ctx, struct place *to)
{
	__u32 *words = (__u32 *)to->address;

	words[0] = 0;
	words[1] = 0;
	words[2] = SWAP32(0xffff);
	words[3] = ctx->user_ip4;
	to->port = SWAP16((__u16)ctx->user_port);
	to->family = FAMILY_INET;
	to->protocol = ctx->protocol;
	to->pad = 0;
}

INLINE void read_place6(volatile struct bpf_sock_addr *ctx, struct place *to)
{
	__u32 *words = (__u32 *)to->address;

	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	to->port = SWAP16((__u16)ctx->user_port);
	to->family = FAMILY_INET6;
	to->protocol = ctx->protocol;
	to->pad = 0;
}

INLINE int daemon_itself(void)
{
	return current_cgroup_id() == CONFIG->daemon_cgroup;
}

INLINE int refuse(__u32 reason, int error, __u32 state, const struct process_key *who, __u32 uid, __u64 cookie, const struct place *to)
{
	count(reason);
	tell(EVENT_REFUSED, reason, state, who, uid, 0, 0, cookie, to);
	set_retval(-error);
	return REFUSE;
}

/* Only on a socket that is free to connect: whoever else holds it must not take the record off a connection that lives. */
INLINE int pass(struct bpf_sock *sk)
{
	struct record *record = client_record(sk);

	if (record && sk->state == TCP_STATE_CLOSE)
		record->port = 0;
	return PASS;
}

/* Kind by kind as docs/reasons.md says, but ECONNREFUSED for what is no TCP: it makes HTTP/3 clients fall back at once. */
INLINE int error_of(__u32 reason, const struct place *to)
{
	if (reason == REASON_NETNS_UNSERVED || reason == REASON_SOCKET_BUSY)
		return ERROR_PERM;
	if (reason == REASON_PROTOCOL_UNSUPPORTED && to->protocol == PROTOCOL_TCP)
		return ERROR_PERM;
	return ERROR_REFUSED;
}

INLINE void rewrite(volatile struct bpf_sock_addr *ctx, const struct place *to)
{
	if (to->family == FAMILY_INET) {
		ctx->user_ip4 = listener_ip4(to->address, to->port);
		ctx->user_port = SWAP16(CONFIG->port4);
	} else if (is_mapped(to->address)) {
		ctx->user_ip6[3] = listener_ip4(to->address, to->port);	/* stays ::ffff:0:0/96 and so with the IPv4 listener */
		ctx->user_port = SWAP16(CONFIG->port4);
	} else {
		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = 0;
		ctx->user_ip6[3] = SWAP32(1);
		ctx->user_port = SWAP16(CONFIG->port6);
	}
}

/* A socket bound to a device would send its SYN for 127.0.0.0/8 out there. */
INLINE int leave_device(volatile struct bpf_sock_addr *ctx)
{
	int lo = IFINDEX_LO;

	if (!set_socket_option((void *)ctx, LEVEL_SOCKET, OPTION_BINDTOIFINDEX, &lo, sizeof(lo)))
		return 1;
	count(COUNT_DEVICE_KEPT);
	return 0;
}

/* Gives REASON_GRANTED, or what stands in the way; then the socket is as it was. */
INLINE __u32 redirect(volatile struct bpf_sock_addr *ctx, struct bpf_sock *sk, const struct subject *who, __u32 flags, __u32 generation,
		      const struct place *to)
{
	struct record fresh = {};
	struct record *kept;

	if (sk->state != TCP_STATE_CLOSE) {
		/*
		 * Programs call connect() again to learn how the first one went: same owner, same record, and the kernel says
		 * EALREADY or EISCONN.  Anybody else would take over a socket that is not his.
		 */
		kept = client_record(sk);
		if (!kept || !same_key(&kept->owner, &who->key))
			return REASON_SOCKET_BUSY;
		rewrite(ctx, to);
		return REASON_GRANTED;
	}
	fresh.owner = who->key;
	fresh.cookie = socket_cookie((void *)ctx);
	fresh.at_ns = now_ns();
	fresh.tid = (__u32)current_pid_tgid();
	fresh.uid = who->uid;
	fresh.gid = who->gid;
	fresh.script_id = who->script_id;
	fresh.generation = generation;
	fresh.revision = CONFIG->revision;
	fresh.mark = sk->mark;
	fresh.ifindex = sk->bound_dev_if;
	fresh.port = to->port;
	fresh.family = to->family;
	fresh.flags = who->flags | (flags & PROCESS_OBSERVED);
	__builtin_memcpy(fresh.address, to->address, 16);
	kept = storage_get(MAP(MAP_CLIENTS), sk, &fresh, STORAGE_CREATE);
	if (!kept)
		return REASON_TABLE_FULL;
	if (fresh.ifindex && fresh.ifindex != IFINDEX_LO && !leave_device(ctx)) {
		kept->port = 0;
		return REASON_PROTOCOL_UNSUPPORTED;
	}
	fresh.guarded = kept->guarded;
	*kept = fresh;	/* an older record of the same socket is not replaced by CREATE */
	count(COUNT_REDIRECTED);
	rewrite(ctx, to);
	return REASON_GRANTED;
}

INLINE __u16 listener_port_for(const struct place *to)
{
	return to->family == FAMILY_INET || is_mapped(to->address) ? CONFIG->port4 : CONFIG->port6;
}

/*
 * The whole story of one connect() or one datagram.  ``datagram`` is a constant at each call: sendmsg programs may not hold a call
 * of bpf_setsockopt() at all, and a datagram is never redirected.
 */
INLINE int decide(volatile struct bpf_sock_addr *ctx, const struct place *to, const int datagram)
{
	__u64 filters = CONFIG->filters;
	struct bpf_sock *sk = ctx->sk;
	struct judgement found;
	struct subject who;
	__u32 why;

	if (!sk)
		return PASS;	/* the verifier asks; sock_addr hooks always have one */
	if (!CONFIG->enforce || !port_of_interest(to->port, filters) || network_excluded(to, filters) || daemon_itself())
		return pass(sk);
	read_subject(current_task(), &who);
	judge(&who, filters, &found);
	if (found.state < STATE_PENDING)
		return pass(sk);
	if (switched_off()) {
		count(COUNT_OFF);
		return pass(sk);
	}
	if (found.full)
		why = REASON_TABLE_FULL;
	else if (!daemon_alive())
		why = REASON_DAEMON_DOWN;
	else if (datagram || to->protocol != PROTOCOL_TCP || ctx->type != KIND_STREAM)
		why = REASON_PROTOCOL_UNSUPPORTED;
	else if (netns_cookie((void *)ctx) != CONFIG->netns_cookie)
		why = REASON_NETNS_UNSERVED;
	else if (!listener_port_for(to))
		why = REASON_DAEMON_DOWN;
	else
		why = redirect(ctx, sk, &who, found.flags, generation_of(filters), to);
	if (why == REASON_GRANTED)
		return PASS;
	if (why == REASON_DAEMON_DOWN && (found.flags & PROCESS_DIRECT_WHEN_DOWN)) {
		count(COUNT_DIRECT);
		return pass(sk);
	}
	if (found.flags & PROCESS_OBSERVED) {
		count(COUNT_OBSERVED);
		tell(EVENT_SPARED, why, found.state, &who.key, who.uid, who.script_id, 0, socket_cookie((void *)ctx), to);
		return pass(sk);
	}
	return refuse(why, error_of(why, to), found.state, &who.key, who.uid, socket_cookie((void *)ctx), to);
}

/* The application asked for the original address and is told that it has it. */
INLINE const struct record *record_of_peer(volatile struct bpf_sock_addr *ctx)
{
	__u16 port = SWAP16((__u16)ctx->user_port);
	struct bpf_sock *sk = ctx->sk;

	if (!sk || (port != CONFIG->port4 && port != CONFIG->port6))
		return NULL;
	return client_record(sk);
}

INLINE int show_peer4(volatile struct bpf_sock_addr *ctx)
{
	const struct record *record = record_of_peer(ctx);

	if (record) {
		ctx->user_ip4 = ((const __u32 *)record->address)[3];
		ctx->user_port = SWAP16(record->port);
	}
	return PASS;
}

INLINE int show_peer6(volatile struct bpf_sock_addr *ctx)
{
	const struct record *record = record_of_peer(ctx);

	if (record) {
		const __u32 *words = (const __u32 *)record->address;

		ctx->user_ip6[0] = words[0];
		ctx->user_ip6[1] = words[1];
		ctx->user_ip6[2] = words[2];
		ctx->user_ip6[3] = words[3];
		ctx->user_port = SWAP16(record->port);
	}
	return PASS;
}

/* Nobody but the daemon may take the listener's port, not even while nobody listens there or we are switched off. */
INLINE int guard_port(volatile struct bpf_sock_addr *ctx, const struct place *to)
{
	struct subject who;

	if (!to->port || (to->port != CONFIG->port4 && to->port != CONFIG->port6))
		return PASS;
	if (ctx->type != KIND_STREAM || daemon_itself() || netns_cookie((void *)ctx) != CONFIG->netns_cookie)
		return PASS;
	read_subject(current_task(), &who);
	return refuse(REASON_PORT_GUARDED, ERROR_PERM, STATE_UNKNOWN, &who.key, who.uid, 0, to);
}

#endif
