/*
 * Agreement: one value per instance for ever.
 *
 * A model of package paxos for spin: phase 1 once for all instances, phase 2
 * accepted in order, the durable promise, the chosen notice that counts at
 * exactly one ballot, crash and restart, and membership as a barrier behind which
 * phase 1 runs again. Leases are not here: agreement must not need them. They are
 * in lease.pml. docs/paxos-model.md maps the steps to functions and says what is
 * left out.
 *
 * A message, once sent, may arrive at any time, many times, or never: so messages
 * are not in channels but in arrays that say what was ever said under a ballot.
 * Each step is one turn of one member together with the sync that it waits for.
 *
 * With DAMAGE a crash may find a record of the log unreadable. A member that may have
 * lost a vote or a promise by that is gone; what is known to be chosen is asked for.
 *
 * Sizes and planted faults come with -D; model_test.go has the runs.
 */

#ifndef N
#define N 3            /* members are 0..N-1; 0 and 1 propose */
#endif
#ifndef BALLOTS
#define BALLOTS 3      /* ballots are 1..BALLOTS */
#endif
#ifndef OWNERS
#define OWNERS 20      /* bit b is the proposer that owns ballot b: 0 the odd ones, 1 the even ones */
#endif
#ifndef INSTANCES
#define INSTANCES 2    /* instances are 1..INSTANCES */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

#define OWNER(b)   ((OWNERS >> (b)) & 1)
/* A proposer takes its next ballot: to skip one is to make the world smaller. */
#define SKIPS(p, b) (((b) > 1 && promised[p] < (b) - 1 && OWNER((b) - 1) == p) || ((b) > 2 && promised[p] < (b) - 2 && OWNER((b) - 2) == p))
#define I(n, i)    ((n) * INSTANCES + (i) - 1)       /* place of instance i of member n */
#define M(b, i)    (((b) - 1) * INSTANCES + (i) - 1) /* place of instance i of ballot b */
#define A(b, n)    (((b) - 1) * N + (n))             /* place of member n of ballot b */
#define BIT(n)     (1 << (n))

/* Values: a ballot stands for what its owner proposes first under it. */
#define NOOP   14
#define CHANGE 15      /* the membership that replaces OLD by NEW */

#ifdef MEMBERSHIP
#define OLD 7          /* 0, 1, 2: a majority is two */
#define NEW 11         /* 0, 1, 3: a majority is two, and need not meet one of OLD */
#else
#define OLD (BIT(N) - 1)
#define NEW OLD
#endif
#define VOTES(set, cfg, n)  ((((set) & (cfg)) >> (n)) & 1)
#define COUNT(set, cfg)     (VOTES(set, cfg, 0) + VOTES(set, cfg, 1) + VOTES(set, cfg, 2) + VOTES(set, cfg, 3) + VOTES(set, cfg, 4))
#define MAJORITY(set, cfg)  (2 * COUNT(set, cfg) > COUNT(cfg, cfg))

#define FOLLOWING 0
#define PREPARING 1
#define LEADING   2
#define RAISING   3    /* leads, and runs phase 1 of a higher ballot */

/* On disk. */
byte promised[N];
byte accBallot[N * INSTANCES];
byte accValue[N * INSTANCES];

#ifdef DAMAGE
byte mark[N];          /* everything through here is chosen, on disk for good */
bit  rotten[N * INSTANCES];              /* chosen, and unreadable here */
bit  gone[N];          /* lost what it may have promised or voted for: it runs no more */
byte wasBallot[N * INSTANCES];           /* the record before the newest, for a planted fault */
byte wasValue[N * INSTANCES];
#define RUNS(n)        (!gone[n])
#define READABLE(n, i) (!rotten[I(n, i)])
#else
#define RUNS(n)        (1)
#define READABLE(n, i) (1)
#endif

/* In memory. */
byte chosen[N];        /* on disk lazily: a restart may know less */
byte config[N];        /* members, as of chosen */
byte follows[N];       /* the ballot followed */
byte held[N];          /* all through here is accepted under follows, or chosen */
byte heard[N];         /* all through here is chosen, in the words of a leader */
byte phase[N];
byte leads[N];         /* ballot led */
byte try[N];           /* ballot of the attempt */
byte first[N];         /* phase 1 of the attempt begins here */
byte yes[N];           /* who promised */
byte fndBallot[2 * INSTANCES];
byte fndValue[2 * INSTANCES];

/* Said under a ballot. */
byte asked[BALLOTS + 1];                 /* prepare: first instance; 0: not sent */
bit  won[BALLOTS + 1];                   /* its owner leads or has led with it */
byte said[BALLOTS * INSTANCES];          /* accept: value at an instance; 0: none */
byte notice[BALLOTS + 1];                /* chosen through */
byte acked[BALLOTS * N];                 /* accepted: durable through */

/* The judge's. */
byte decided[INSTANCES + 1];
byte crashes;

/* declare is learnChosen for the next instance: here agreement is judged. v is
 * pasted as text, so chosen moves last. */
inline declare(n, v) {
	assert(decided[chosen[n] + 1] == 0 || decided[chosen[n] + 1] == v);
	decided[chosen[n] + 1] = v;
	if
	:: v == CHANGE ->
		config[n] = NEW;
		if
		:: phase[n] == PREPARING -> phase[n] = FOLLOWING; try[n] = 0; yes[n] = 0; forget(n)
		:: else
		fi
	:: else
	fi;
	chosen[n]++
}

/* forget clears what phase 1 found, so that equal states look equal. */
inline forget(n) {
	if
	:: n < 2 ->
		for (k : 1 .. INSTANCES) { fndBallot[I(n, k)] = 0; fndValue[I(n, k)] = 0 }
	:: else
	fi;
	first[n] = 0
}

inline stepDown(n) {
	phase[n] = FOLLOWING; leads[n] = 0; try[n] = 0; yes[n] = 0;
	forget(n)
}

/* countChosen applies a notice: only what is held at the followed ballot counts. */
inline countChosen(n) {
	do
#ifdef FAULT_COMMIT_BY_INDEX
	:: chosen[n] < heard[n] && accValue[I(n, chosen[n] + 1)] != 0 ->
#else
	:: chosen[n] < heard[n] && chosen[n] < held[n] ->
#endif
		declare(n, accValue[I(n, chosen[n] + 1)])
	:: else -> break
	od;
	if
	:: held[n] < chosen[n] -> held[n] = chosen[n]
	:: else
	fi
}

/* merge keeps the entry of the highest ballot. */
inline merge(p, n) {
	for (k : 1 .. INSTANCES) {
		if
#ifdef FAULT_ADOPT_LAST
		:: k >= first[p] && accBallot[I(n, k)] != 0 ->
#else
		:: k >= first[p] && k > chosen[n] && accBallot[I(n, k)] > fndBallot[I(p, k)] ->
#endif
			fndBallot[I(p, k)] = accBallot[I(n, k)];
			fndValue[I(p, k)] = accValue[I(n, k)]
		:: else
		fi
	}
}

/* adopt ends phase 1: what was found is proposed again, up to a membership. */
inline adopt(p, b) {
	top = 0; lost = 0;
	for (k : 1 .. INSTANCES) {
		if
		:: k > chosen[p] && fndBallot[I(p, k)] != 0 ->
			top = k;
			lost = lost || (phase[p] == RAISING && fndBallot[I(p, k)] > leads[p])
		:: else
		fi
	}
	if
	:: lost -> stepDown(p)
	:: else ->
		assert(!won[b]); /* or one ballot could speak for two values */
		won[b] = 1; leads[p] = b; follows[p] = b; held[p] = chosen[p]; acked[A(b, p)] = chosen[p];
		phase[p] = LEADING; try[p] = 0; yes[p] = 0;
		for (k : 1 .. INSTANCES) {
			if
			:: k <= chosen[p] -> said[M(b, k)] = (READABLE(p, k) -> accValue[I(p, k)] : 0)
			:: k > chosen[p] && k <= top ->
				if
				:: fndBallot[I(p, k)] != 0 -> said[M(b, k)] = fndValue[I(p, k)]
				:: else -> said[M(b, k)] = NOOP
				fi;
#ifndef FAULT_CARRY_OVER
				if
				:: said[M(b, k)] == CHANGE -> top = k
				:: else
				fi
#endif
			:: else
			fi
		}
		forget(p)
	fi
}

#ifdef FAULT_OLDER_RECORD
inline remember(n, i) {
	if
	:: accValue[I(n, i)] != 0 -> wasBallot[I(n, i)] = accBallot[I(n, i)]; wasValue[I(n, i)] = accValue[I(n, i)]
	:: else
	fi
}
#else
inline remember(n, i) { skip }
#endif

#ifdef DAMAGE
/* spoil makes the record of an entry unreadable, and judges what is lost by that. */
inline spoil(n, i) {
	d_step {
#ifdef FAULT_OLDER_RECORD
		accBallot[I(n, i)] = wasBallot[I(n, i)]; accValue[I(n, i)] = wasValue[I(n, i)]
#else
		accBallot[I(n, i)] = 0; accValue[I(n, i)] = 0;
		if
		:: i <= mark[n] -> rotten[I(n, i)] = 1
#ifdef FAULT_DAMAGED_VOTE
		:: else
#else
		:: else -> gone[n] = 1
#endif
		fi
#endif
	}
}

inline mend(n, m, i) {
	accBallot[I(n, i)] = accBallot[I(m, i)];
	accValue[I(n, i)] = accValue[I(m, i)];
	rotten[I(n, i)] = 0
}
#endif

/* follow takes the owner of a ballot for the leader. */
inline follow(n, b) {
	if
	:: n != OWNER(b) && phase[n] != FOLLOWING -> stepDown(n)
	:: else
	fi;
	follows[n] = b; held[n] = chosen[n];
	if
	:: promised[n] < b -> promised[n] = b
	:: else
	fi;
	acked[A(b, n)] = held[n]
}

/* drained says that everything proposed under b is chosen; free, that a next
 * instance may be proposed. */
#define DRAINED(p, b)  (chosen[p] == INSTANCES || said[M(b, chosen[p] + 1)] == 0)
#define EMPTY(b, i)    (said[M(b, i)] == 0 && (i) > chosen[OWNER(b)] && ((i) == 1 || said[M(b, (i) - 1)] != 0))

#define BARRIER(b, i)  ((i) > 1 && said[M(b, (i) - 1)] == CHANGE && chosen[OWNER(b)] < (i) - 1)

/* The instance that n accepts next under b: a new ballot begins behind what is chosen. */
#define NEXT(n, b)  ((follows[n] == b -> held[n] : chosen[n]) + 1)

/* Member n as an acceptor and learner of ballot b. */
proctype Acceptor(byte n; byte b) {
	byte k, top; bit lost;
end:	do
	/* Phase 1b. The promise reaches its candidate at once, or counts no more. */
	:: d_step { RUNS(n) && asked[b] != 0 && chosen[n] < asked[b] && (config[OWNER(b)] & BIT(n)) &&
	            (promised[n] < b || (promised[n] == b && try[OWNER(b)] == b && !(yes[OWNER(b)] & BIT(n)))) ->
		promised[n] = b;
		if
		:: n != OWNER(b) && phase[n] != FOLLOWING -> stepDown(n)
		:: else
		fi;
		if
		:: try[OWNER(b)] == b && first[OWNER(b)] == asked[b] ->
			merge(OWNER(b), n);
			yes[OWNER(b)] = yes[OWNER(b)] | BIT(n);
			if
#ifdef FAULT_OWN_PROMISE
			:: MAJORITY(yes[OWNER(b)], config[OWNER(b)]) -> adopt(OWNER(b), b)
#else
			:: MAJORITY(yes[OWNER(b)], config[OWNER(b)]) && (yes[OWNER(b)] & BIT(OWNER(b))) -> adopt(OWNER(b), b)
#endif
			:: else
			fi
		:: else
		fi;
		k = 0; top = 0; lost = 0
	   }
	/* A heartbeat tells the leader what is chosen here. */
	:: d_step { RUNS(n) && won[b] && promised[n] <= b && follows[n] != b && n != OWNER(b) && chosen[n] > 0 ->
		follow(n, b);
		k = 0
	   }
	/* Phase 2b, in order. */
	:: d_step { RUNS(n) && won[b] && promised[n] <= b && NEXT(n, b) <= INSTANCES && said[M(b, NEXT(n, b))] != 0 ->
		if
		:: follows[n] != b -> follow(n, b)
		:: else
		fi;
		held[n]++;
		remember(n, held[n]);
		accBallot[I(n, held[n])] = b;
		accValue[I(n, held[n])] = said[M(b, held[n])];
		acked[A(b, n)] = held[n];
		countChosen(n);
		k = 0
	   }
	/* A notice: everything through here is chosen, under this ballot. */
	:: d_step { RUNS(n) && won[b] && promised[n] <= b && n != OWNER(b) && heard[n] < notice[b] ->
		if
		:: follows[n] != b -> follow(n, b)
		:: else
		fi;
		heard[n] = notice[b];
		countChosen(n);
		k = 0
	   }
	od
}

/* Member n hears from member m what is chosen. */
proctype Learner(byte n; byte m) {
	byte k;
end:	do
	:: d_step { RUNS(n) && RUNS(m) && chosen[n] < chosen[m] && READABLE(m, chosen[n] + 1) && (phase[n] < LEADING || accBallot[I(m, chosen[n] + 1)] > leads[n]) ->
		if
		:: phase[n] >= LEADING -> stepDown(n)
		:: else
		fi;
		remember(n, chosen[n] + 1);
		accBallot[I(n, chosen[n] + 1)] = accBallot[I(m, chosen[n] + 1)];
		accValue[I(n, chosen[n] + 1)] = accValue[I(m, chosen[n] + 1)];
#ifdef FAULT_PROMISE_SHRINKS
		promised[n] = accBallot[I(m, chosen[n] + 1)];
#endif
		declare(n, accValue[I(n, chosen[n] + 1)]);
		if
		:: held[n] < chosen[n] ->
			held[n] = chosen[n];
			if
			:: follows[n] != 0 && acked[A(follows[n], n)] < held[n] -> acked[A(follows[n], n)] = held[n]
			:: else
			fi
		:: else
		fi;
		k = 0
	   }
#ifdef DAMAGE
	/* What is unreadable is asked for, and appended anew. */
	:: d_step { RUNS(n) && RUNS(m) && INSTANCES >= 1 && rotten[I(n, 1)] && chosen[m] >= 1 && READABLE(m, 1) -> mend(n, m, 1) }
#if INSTANCES > 1
	:: d_step { RUNS(n) && RUNS(m) && rotten[I(n, 2)] && chosen[m] >= 2 && READABLE(m, 2) -> mend(n, m, 2) }
#endif
#ifdef FAULT_MEND_BY_PROPOSAL
	:: d_step { RUNS(n) && m < 2 && rotten[I(n, 1)] && leads[m] != 0 && said[M(leads[m], 1)] != 0 ->
		rotten[I(n, 1)] = 0; accValue[I(n, 1)] = said[M(leads[m], 1)]; accBallot[I(n, 1)] = leads[m]
	   }
#endif
#endif
	od
}

/* A member loses its memory. */
proctype Crash(byte n) {
	byte k;
end:	do
	:: atomic { RUNS(n) && crashes < CRASHES && (follows[n] != 0 || phase[n] != FOLLOWING) ->
		d_step {
			crashes++;
			stepDown(n);
			follows[n] = 0; heard[n] = 0; k = 0
		};
#ifdef FAULT_PROMISE_FORGOTTEN
		promised[n] = 0;
#endif
		if
		:: true
#ifdef DAMAGE
		:: chosen[n] > mark[n] -> chosen[n] = mark[n]
#else
		:: chosen[n] != 0 -> chosen[n] = 0; config[n] = OLD
#endif
		fi;
#ifdef DAMAGE
		/* A bit may have flipped: in a record of an entry, or in the promise. */
		mark[n] = chosen[n];
		if
		:: true
		:: accBallot[I(n, 1)] != 0 && !rotten[I(n, 1)] -> spoil(n, 1)
#if INSTANCES > 1
		:: accBallot[I(n, 2)] != 0 && !rotten[I(n, 2)] -> spoil(n, 2)
#endif
		:: promised[n] != 0 ->
#ifdef FAULT_DAMAGED_PROMISE
			promised[n] = 0
#else
			gone[n] = 1
#endif
		fi;
#endif
		held[n] = chosen[n]
	   }
	od
}

/* Member p as a candidate and leader with ballot b. */
proctype Proposer(byte p; byte b) {
	byte k; byte set;
end:	do
	/* Phase 1a: as a candidate, again with a higher ballot, as one who stepped
	 * down, or as a leader who raises. */
	:: d_step { RUNS(p) && promised[p] < b && !SKIPS(p, b) && try[p] < b && phase[p] != RAISING && (config[p] & BIT(p)) && chosen[p] < INSTANCES ->
		stepDown(p);
		phase[p] = PREPARING; try[p] = b; first[p] = chosen[p] + 1; asked[b] = chosen[p] + 1;
		k = 0
	   }
	:: d_step { promised[p] < b && !SKIPS(p, b) && try[p] < b && phase[p] >= LEADING && chosen[p] < INSTANCES ->
		yes[p] = 0; forget(p);
		phase[p] = RAISING; try[p] = b; first[p] = chosen[p] + 1; asked[b] = chosen[p] + 1;
		k = 0
	   }
	/* Phase 2a. */
#ifndef CHANGE_FIRST
	:: d_step { phase[p] == LEADING && leads[p] == b && EMPTY(b, 1) -> said[M(b, 1)] = b }
#endif
#if INSTANCES > 1
	:: d_step { phase[p] == LEADING && leads[p] == b && EMPTY(b, 2) && !BARRIER(b, 2) -> said[M(b, 2)] = b }
#endif
#if INSTANCES > 2
	:: d_step { phase[p] == LEADING && leads[p] == b && EMPTY(b, 3) && !BARRIER(b, 3) -> said[M(b, 3)] = b }
#endif
#ifdef MEMBERSHIP
	/* A membership waits until all before it is chosen. */
	:: d_step { phase[p] == LEADING && leads[p] == b && p == 0 && config[p] == OLD && chosen[p] < INSTANCES && DRAINED(p, b) -> said[M(b, chosen[p] + 1)] = CHANGE }
#endif
	/* A majority holds the next instance. */
	:: d_step { phase[p] == LEADING && leads[p] == b && chosen[p] < INSTANCES && said[M(b, chosen[p] + 1)] != 0 ->
		set = 0;
		for (k : 0 .. N - 1) {
			if
			:: acked[A(b, k)] > chosen[p] -> set = set | BIT(k)
			:: else
			fi
		}
		if
		:: MAJORITY(set, config[p]) ->
			/* In memory since it was proposed; on disk when learned, as elsewhere. */
			remember(p, chosen[p] + 1);
			accBallot[I(p, chosen[p] + 1)] = b;
			accValue[I(p, chosen[p] + 1)] = said[M(b, chosen[p] + 1)];
			declare(p, said[M(b, chosen[p] + 1)]);
			notice[b] = chosen[p];
			if
			:: held[p] < chosen[p] -> held[p] = chosen[p]
			:: else
			fi;
			if
			:: said[M(b, chosen[p])] == CHANGE && !(config[p] & BIT(p)) -> stepDown(p)
#ifndef FAULT_CARRY_OVER
			:: said[M(b, chosen[p])] == CHANGE && (config[p] & BIT(p)) -> phase[p] = RAISING
#endif
			:: else
			fi
		:: else
		fi;
		k = 0; set = 0
	   }
	od
}

init {
	byte n, b;
	atomic {
		for (n : 0 .. N - 1) {
			config[n] = OLD;
			run Crash(n);
			for (b : 1 .. BALLOTS) { run Acceptor(n, b) }
			for (b : 0 .. N - 1) {
				if
				:: b != n -> run Learner(n, b)
				:: else
				fi
			}
		}
		for (b : 1 .. BALLOTS) { run Proposer(OWNER(b), b) }
		n = 0; b = 0
	}
}
