// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Is this process anybody's?
 *
 * In: a subject and the filters in force.  Out: its state.  The table is only a memory of earlier answers: an entry counts when
 * process key, uid, namespaces, tracer and filter generation are all as they were, otherwise the filters are asked again.
 * What costs least comes first: an executable that no filter lists leaves after one look-up.
 */
#ifndef CREDWIRE_JUDGE_H
#define CREDWIRE_JUDGE_H

#define SHAPE_BIT(shape) (1u << (shape))
#define SHAPES_WITHOUT_EXE (SHAPE_BIT(PART_UID) | SHAPE_BIT(PART_SCRIPT) | SHAPE_BIT(PART_UID | PART_SCRIPT))
#define SHAPES_WITH_SCRIPT (SHAPE_BIT(4) | SHAPE_BIT(5) | SHAPE_BIT(6) | SHAPE_BIT(7))
#define SHAPE_LIMIT 8

struct judgement {
	__u32 state;	/* enum process_state */
	__u32 flags;	/* enum process_flag */
	__u32 full;	/* a filter hit, but the table has no room */
};

enum memory {
	MEMORY_NONE,
	MEMORY_OLD,	/* same program, but judged by other facts or filters */
	MEMORY_CURRENT,
};

/*
 * Slots of a preallocated hash are reused at once, so the value may change under our eyes: take what is needed first and compare
 * the key it carries last.
 */
INLINE enum memory recall(const struct process *entry, const struct subject *who, __u32 generation, struct judgement *out, __u32 *script_id)
{
	int current;

	out->state = entry->state;
	out->flags = entry->flags;
	*script_id = entry->script_id;
	current = entry->generation == generation && entry->uid == who->uid && (entry->flags & PROCESS_SEEN) == who->flags;
	asm volatile("" ::: "memory");
	if (!same_key(&entry->key, &who->key)) {
		*script_id = 0;
		return MEMORY_NONE;
	}
	return current ? MEMORY_CURRENT : MEMORY_OLD;
}

INLINE int executable_listed(const struct subject *who, __u64 filters)
{
	struct filter_key key = {
		.exe_ino = who->exe_ino,
		.exe_dev = who->exe_dev,
		.generation = generation_of(filters),
		.shape = PART_EXE,
	};

	return map_lookup(MAP(MAP_FILTERS), &key) != NULL;
}

/* 0, or FILTER_MATCH with the lenient flags that every filter that hits has: among several the strict one counts. */
INLINE __u32 match_filters(const struct subject *who, __u64 filters)
{
	__u32 hit = 0, lenient = FILTER_DIRECT_WHEN_DOWN | FILTER_OBSERVE;

#pragma unroll
	for (__u32 shape = 1; shape < SHAPE_LIMIT; shape++) {
		struct filter_key key = { .generation = generation_of(filters), .shape = shape };
		const struct filter_value *found;

		if (!(shapes_of(filters) & SHAPE_BIT(shape)))
			continue;
		if (shape & PART_EXE) {
			key.exe_ino = who->exe_ino;
			key.exe_dev = who->exe_dev;
		}
		if (shape & PART_UID)
			key.uid = who->uid;
		if (shape & PART_SCRIPT) {
			if (!who->script_id)
				continue;
			key.script_id = who->script_id;
		}
		found = map_lookup(MAP(MAP_FILTERS), &key);
		if (!found || !(found->flags & FILTER_MATCH))
			continue;
		hit = FILTER_MATCH;
		lenient &= found->flags;
	}
	return hit ? hit | lenient : 0;
}

INLINE long remember(__u32 map, const struct subject *who, __u32 generation, __u32 state, __u32 flags)
{
	struct process entry = {
		.key = who->key,
		.exe_ino = who->exe_ino,
		.at_ns = now_ns(),
		.exe_dev = who->exe_dev,
		.uid = who->uid,
		.gid = who->gid,
		.script_id = who->script_id,
		.generation = generation,
		.flags = flags,
		.state = state,
	};

	return map_update(MAP(map), &who->key, &entry, UPDATE_ANY);
}

/* who->script_id: what exec found; 0 at connect, where the table may know better. */
INLINE void judge(struct subject *who, __u64 filters, struct judgement *out)
{
	__u32 generation = generation_of(filters), script_id = 0, matched;
	enum memory tracked = MEMORY_NONE, passed_over = MEMORY_NONE;
	const struct process *entry;
	int listed;

	out->state = STATE_UNKNOWN;
	out->flags = 0;
	out->full = 0;
	if (!shapes_of(filters))
		return;
	listed = executable_listed(who, filters);
	if (!listed && !(shapes_of(filters) & SHAPES_WITHOUT_EXE))
		return;

	entry = map_lookup(MAP(MAP_PROCS), &who->key);
	if (entry) {
		tracked = recall(entry, who, generation, out, &script_id);
	} else {
		entry = map_lookup(MAP(MAP_STRANGERS), &who->key);
		if (entry)
			passed_over = recall(entry, who, generation, out, &script_id);
	}
	if (!who->script_id)
		who->script_id = script_id;
	if (tracked == MEMORY_CURRENT || passed_over == MEMORY_CURRENT)
		return;

	out->state = STATE_UNKNOWN;
	out->flags = who->flags;
	matched = match_filters(who, filters);
	if (matched) {
		if (matched & FILTER_DIRECT_WHEN_DOWN)
			out->flags |= PROCESS_DIRECT_WHEN_DOWN;
		if (matched & FILTER_OBSERVE)
			out->flags |= PROCESS_OBSERVED;
		out->state = STATE_PENDING;
		if (remember(MAP_PROCS, who, generation, STATE_PENDING, out->flags))
			out->full = 1;
		if (passed_over)
			map_delete(MAP(MAP_STRANGERS), &who->key);
		tell(EVENT_PENDING, REASON_GRANTED, STATE_PENDING, &who->key, who->uid, who->script_id, 0, 0, NULL);
		return;
	}
	out->state = STATE_UNBOUND;
	if (tracked)
		map_delete(MAP(MAP_PROCS), &who->key);
	if (listed || who->script_id)
		remember(MAP_STRANGERS, who, generation, STATE_UNBOUND, out->flags);	/* LRU: makes room by itself; a memory, not a need */
}

#endif
