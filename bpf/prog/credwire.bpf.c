// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * The programs.  bcc gives each function in this text a section; everything they do is in the headers.
 *
 * Names are bpf/programs.py's.  Loaded with the licence string "GPL v2", the half of the licence that the kernel's helpers ask for.
 */
#include "abi.h"
#include "prog/helpers.h"
#include "prog/maps.h"
#include "prog/task.h"
#include "prog/event.h"
#include "prog/judge.h"
#include "prog/connect.h"
#include "prog/handoff.h"
#include "prog/sender.h"
#include "prog/reply.h"
#include "prog/track.h"

int connect4(struct bpf_sock_addr *ctx)
{
	struct place to;

	read_place4(ctx, &to);
	return decide(ctx, &to, 0);
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct place to;

	read_place6(ctx, &to);
	return decide(ctx, &to, 0);
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct place to;

	read_place4(ctx, &to);
	return decide(ctx, &to, 1);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct place to;

	read_place6(ctx, &to);
	return decide(ctx, &to, 1);
}

int bind4(struct bpf_sock_addr *ctx)
{
	struct place to;

	read_place4(ctx, &to);
	return guard_port(ctx, &to);
}

int bind6(struct bpf_sock_addr *ctx)
{
	struct place to;

	read_place6(ctx, &to);
	return guard_port(ctx, &to);
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	return show_peer4(ctx);
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	return show_peer6(ctx);
}

int sockops(struct bpf_sock_ops *ctx)
{
	return hand_off(ctx);
}

int sender(struct sk_msg_md *ctx)
{
	return check_sender(ctx);
}

int getsockopt_record(struct bpf_sockopt *ctx)
{
	return reply(ctx);
}

int exec_tracker(struct bpf_raw_tracepoint_args *ctx)
{
	on_exec(ctx);
	return 0;
}

int fork_tracker(struct bpf_raw_tracepoint_args *ctx)
{
	on_fork(ctx);
	return 0;
}

int exit_tracker(struct bpf_raw_tracepoint_args *ctx)
{
	on_exit();
	return 0;
}
