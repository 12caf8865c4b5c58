// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * The record's way from the connecting socket to the accepted one.
 *
 * TCP_CONNECT_CB: the source port is chosen, the SYN not sent: publish the record under the tuple.
 * ACTIVE_ESTABLISHED_CB: put the client's socket under the sender check; without the check there is no record, unless its owner is
 * only observed: such a connection never bears a credential.
 * PASSIVE_ESTABLISHED_CB: keep the record on the accepted socket and forget the tuple.
 * On loopback the client is established before its ACK leaves, so the second comes before the third.
 */
#ifndef CREDWIRE_HANDOFF_H
#define CREDWIRE_HANDOFF_H

/*
 * All words are read before the family is looked at: reading them in branches, the compiler joins the loads behind one computed
 * address, and the verifier takes no load through a moved context pointer.
 */
INLINE int tuple_ends(volatile struct bpf_sock_ops *ops, __u8 *local, __u8 *remote)
{
	__u32 *here = (__u32 *)local, *there = (__u32 *)remote;
	__u32 local4 = ops->local_ip4, remote4 = ops->remote_ip4, family = ops->family;

	here[0] = ops->local_ip6[0];
	here[1] = ops->local_ip6[1];
	here[2] = ops->local_ip6[2];
	here[3] = ops->local_ip6[3];
	there[0] = ops->remote_ip6[0];
	there[1] = ops->remote_ip6[1];
	there[2] = ops->remote_ip6[2];
	there[3] = ops->remote_ip6[3];
	if (family == FAMILY_INET) {
		here[0] = 0;
		here[1] = 0;
		here[2] = SWAP32(0xffff);
		here[3] = local4;
		there[0] = 0;
		there[1] = 0;
		there[2] = SWAP32(0xffff);
		there[3] = remote4;
	}
	return family == FAMILY_INET || family == FAMILY_INET6;
}

/* remote_port is a __be16 in the upper half of a little-endian word, local_port is in host byte order (linux/bpf.h). */
INLINE __u16 remote_port(volatile struct bpf_sock_ops *ops)
{
	return SWAP32(ops->remote_port);
}

INLINE int client_tuple(volatile struct bpf_sock_ops *ops, struct tuple *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->netns_cookie = netns_cookie((void *)ops);
	key->client_port = ops->local_port;
	key->listener_port = remote_port(ops);
	return tuple_ends(ops, key->client, key->listener);
}

INLINE int listener_tuple(volatile struct bpf_sock_ops *ops, struct tuple *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->netns_cookie = netns_cookie((void *)ops);
	key->client_port = remote_port(ops);
	key->listener_port = ops->local_port;
	return tuple_ends(ops, key->listener, key->client);
}

/* The connection goes where connect() sent it: a record left by an earlier connect() says nothing about another destination. */
INLINE int goes_to_listener(const struct tuple *key, const struct record *record)
{
	const __u32 *words = (const __u32 *)key->listener;

	if (is_mapped(key->listener))
		return words[3] == listener_ip4(record->address, record->port);
	return !words[0] && !words[1] && !words[2] && words[3] == SWAP32(1);
}

INLINE void publish(volatile struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct record *record = client_record(sk);
	struct process_key current;
	struct tuple key;

	if (!client_tuple(ops, &key))
		return;
	if (!record || !goes_to_listener(&key, record)) {
		map_delete(MAP(MAP_HANDOFF), &key);	/* straight to the listener: no record, not even a stale one */
		return;
	}
	/*
	 * TCP_FASTOPEN_CONNECT puts the connect off to the first send, which may be another process's, and whose bytes leave before
	 * the sender check is in place: it must be the owner who is running here.
	 */
	read_key(current_task(), &current);
	if (!same_key(&current, &record->owner) && !(record->flags & PROCESS_OBSERVED)) {
		count(REASON_SENDER_NOT_BOUND);
		map_delete(MAP(MAP_HANDOFF), &key);
		return;
	}
	if (map_update(MAP(MAP_HANDOFF), &key, record, UPDATE_ANY))
		count(COUNT_HANDOFF_LOST);	/* the accepted socket will have no record: closed by the listener */
}

INLINE void guard_sender(volatile struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct record *record = client_record(sk);
	struct tuple key;
	__u64 cookie;

	if (!record || record->guarded)
		return;
	cookie = record->cookie;
	if (!sock_hash_update((void *)ops, MAP(MAP_SENDERS), &cookie, UPDATE_ANY)) {
		record->guarded = 1;
		return;
	}
	count(COUNT_SENDER_UNCHECKED);
	if (!(record->flags & PROCESS_OBSERVED) && client_tuple(ops, &key))
		map_delete(MAP(MAP_HANDOFF), &key);
}

INLINE void take(volatile struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct record *record;
	struct tuple key;

	if (!listener_tuple(ops, &key))
		return;
	record = map_lookup(MAP(MAP_HANDOFF), &key);
	if (!record)
		return;
	if (!storage_get(MAP(MAP_ACCEPTED), sk, record, STORAGE_CREATE))
		count(COUNT_ACCEPT_LOST);
	map_delete(MAP(MAP_HANDOFF), &key);
}

INLINE int is_listener_port(__u16 port)
{
	return port && (port == CONFIG->port4 || port == CONFIG->port6);
}

INLINE int hand_off(volatile struct bpf_sock_ops *ops)
{
	__u32 op = ops->op;
	struct bpf_sock *sk;

	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return PASS;
	if (!is_listener_port(op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB ? (__u16)ops->local_port : remote_port(ops)))
		return PASS;
	sk = ops->sk;
	if (!sk)
		return PASS;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		publish(ops, sk);
	else if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		guard_sender(ops, sk);
	else
		take(ops, sk);
	return PASS;
}

#endif
