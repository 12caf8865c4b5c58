// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Kernel helpers by number, under names of our own.
 *
 * bcc declares them too, but gives bpf_get_socket_cookie() 32 bits and maps probe_read_kernel_str to another helper on some
 * builds.  Every helper here exists for our program types since Linux 6.1.
 */
#ifndef CREDWIRE_HELPERS_H
#define CREDWIRE_HELPERS_H

#define INLINE static inline __attribute__((always_inline))
#define HELPER(number) (void *)(number)

static void *(*const map_lookup)(void *map, const void *key) = HELPER(1);
static long (*const map_update)(void *map, const void *key, const void *value, __u64 flags) = HELPER(2);
static long (*const map_delete)(void *map, const void *key) = HELPER(3);
static __u64 (*const now_ns)(void) = HELPER(5);
static __u64 (*const current_pid_tgid)(void) = HELPER(14);
static __u64 (*const socket_cookie)(void *ctx) = HELPER(46);
static long (*const set_socket_option)(void *ctx, int level, int option, void *value, int bytes) = HELPER(49);
static long (*const sock_hash_update)(void *ctx, void *map, void *key, __u64 flags) = HELPER(70);
static __u64 (*const current_cgroup_id)(void) = HELPER(80);
static void *(*const storage_get)(void *map, void *sk, void *value, __u64 flags) = HELPER(107);
static long (*const read_kernel)(void *to, __u32 bytes, const void *from) = HELPER(113);
static long (*const read_kernel_text)(void *to, __u32 bytes, const void *from) = HELPER(115);
static __u64 (*const netns_cookie)(void *ctx) = HELPER(122);
static void *(*const ring_reserve)(void *ring, __u64 bytes, __u64 flags) = HELPER(131);
static void (*const ring_submit)(void *bytes, __u64 flags) = HELPER(132);
static void *(*const current_task)(void) = HELPER(158);
static long (*const set_retval)(int value) = HELPER(187);

enum verdict {
	REFUSE = 0,	/* cgroup hooks: the system call fails */
	PASS = 1,
};

#define STORAGE_CREATE 1	/* BPF_SK_STORAGE_GET_F_CREATE */
#define UPDATE_ANY 0		/* BPF_ANY */

#define PROTOCOL_TCP 6
#define FAMILY_INET 2
#define FAMILY_INET6 10
#define KIND_STREAM 1		/* SOCK_STREAM */
#define TCP_STATE_CLOSE 7	/* TCP_CLOSE */
#define ERROR_PERM 1		/* EPERM */
#define ERROR_REFUSED 111	/* ECONNREFUSED */

/* x86-64 and arm64 are little endian; the loader refuses other machines. */
#define SWAP16(x) __builtin_bswap16(x)
#define SWAP32(x) __builtin_bswap32(x)

#endif
