/*
 * Leases: at most one member at a time holds one.
 *
 * A model of package paxos for spin: leases granted by a majority and renewed,
 * clocks that run at different rates, promises refused while a lease runs,
 * restarts that forget a grant and wait, hand-over by consent, the raise of a
 * leader's own ballot, and a membership that is chosen meanwhile. What is agreed
 * on is not here but in agreement.pml; of the log, only the one membership.
 * docs/paxos-model.md maps the steps to functions and says what is left out.
 *
 * Time is a global tick that every clock sees as SLOW or FAST units, freely at
 * each tick: rates differ by a factor of two, which is a clock error of one third. A
 * grantor waits for LEASE units of its own clock; the holder counts on
 * LEASE * (1 - e) / (1 + e) = HELD units of its own since it sent what was granted.
 *
 * Sizes and planted faults come with -D; model_test.go has the runs.
 */

#ifndef N
#define N 3
#endif
#ifndef BALLOTS
#define BALLOTS 3      
#endif
#ifndef OWNERS
#define OWNERS 20      /* bit b is the proposer that owns ballot b: 0 the odd ones, 1 the even ones */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef HANDOVERS
#define HANDOVERS 1
#endif

#ifdef SAME_RATE
#define SLOW  1        /* a smaller world: all clocks tick alike, a lease ends at the next tick */
#define FAST  1
#define LEASE 1
#define HELD  1
#else
#define SLOW  1
#define FAST  2
#define LEASE 4
#ifdef FAULT_NO_ASYMMETRY
#define HELD  3
#else
#define HELD  2
#endif
#endif

#define OWNER(b)  ((OWNERS >> (b)) & 1)
/* A proposer takes its next ballot: to skip one is to make the world smaller. */
#define SKIPS(p, b) (((b) > 1 && promised[p] < (b) - 1 && OWNER((b) - 1) == p) || ((b) > 2 && promised[p] < (b) - 2 && OWNER((b) - 2) == p))
#define BIT(n)    (1 << (n))
#define P(p, n)   ((p) * N + (n))

#ifdef MEMBERSHIP
#define OLD 7          /* 0, 1, 2 */
#define NEW 11         /* 0, 1, 3: a majority of these need not meet one of those */
#else
#define OLD (BIT(N) - 1)
#define NEW OLD
#endif
#define VOTES(set, cfg, n)  ((((set) & (cfg)) >> (n)) & 1)
#define COUNT(set, cfg)     (VOTES(set, cfg, 0) + VOTES(set, cfg, 1) + VOTES(set, cfg, 2) + VOTES(set, cfg, 3))
#define MAJORITY(set, cfg)  (2 * COUNT(set, cfg) > COUNT(cfg, cfg))

#define FOLLOWING 0
#define PREPARING 1
#define LEADING   2
#define RAISING   3

/* On disk. */
byte promised[N];
byte member[N];        /* ballot at which the membership was accepted; 0: it was not */

/* In memory. Timers count down in the member's own units. */
byte barred[N];
byte leaseOf[N];       /* newest ballot that was granted a lease */
byte leaseLeft[N];
bit  knows[N];         /* the membership is chosen; those who do not propose would only refuse more if they knew */

/* Of the proposers, 0 and 1. */
byte phase[2];
byte leads[2];
byte try[2];
byte yes[2];
byte found[2];         /* highest ballot at which a promiser accepted the membership */
bit  final[2];         /* no membership is open: the term has begun, a lease may be held */
bit  open[2];          /* a membership is proposed and not known to be chosen */
byte age[2 * N];       /* own units since the newest granted message was sent; HELD: none counts */

/* Said. */
bit  asked[BALLOTS + 1];                 /* prepare b was sent */
byte consent[BALLOTS + 1];               /* with it: the renounced ballot */
byte helloOf[2 * N];   /* ballot of the newest heartbeat to a member; it may arrive often */
byte hello[2 * N];     /* own units since it was sent */
byte renounced[2];     /* hand-over to a proposer: the ballot that the other one gave up */
bit  spoke[BALLOTS + 1];                 /* the membership was proposed under b */
byte accepted[BALLOTS + 1];              /* who accepted it under b */
bit  told[BALLOTS + 1];                  /* under b it was said to be chosen */

byte crashes, handovers;

#define CONFIG(n)    (knows[n] -> NEW : OLD)
#ifdef FAULT_OLD_GRANTS
#define LEASECONFIG(n)  OLD
#else
#define LEASECONFIG(n)  CONFIG(n)
#endif
#define COUNTS(p, n) ((n) == (p) || age[P(p, n)] < HELD)
#if N > 3
#define GRANTS(p)    (COUNTS(p, 0) | COUNTS(p, 1) << 1 | COUNTS(p, 2) << 2 | COUNTS(p, 3) << 3)
#else
#define GRANTS(p)    (COUNTS(p, 0) | COUNTS(p, 1) << 1 | COUNTS(p, 2) << 2)
#endif
#define RUNS(p)      (phase[p] >= LEADING && MAJORITY(GRANTS(p), LEASECONFIG(p)))
#ifdef FAULT_OPEN_LEASE
#define HOLDS(p)     (RUNS(p))
#else
#define HOLDS(p)     (RUNS(p) && final[p])
#endif
#define JUDGE        assert(!(HOLDS(0) && HOLDS(1)))

inline forget(p) {
	for (k : 0 .. N - 1) { age[P(p, k)] = HELD }
}

inline stepDown(p) {
	phase[p] = FOLLOWING; leads[p] = 0; try[p] = 0; yes[p] = 0; found[p] = 0; final[p] = 0; open[p] = 0;
	forget(p)
}

inline yield(n, b) {
	if
	:: n < 2 && n != OWNER(b) ->
		if
		:: phase[n] != FOLLOWING -> stepDown(n)
		:: else
		fi
	:: else
	fi
}

inline learn(n) {
	knows[n] = 1;
	if
	:: n < 2 ->
		if
		:: phase[n] == PREPARING -> stepDown(n)
		:: else
		fi
	:: else
	fi
}

inline adopt(p, b) {
	if
	:: phase[p] == RAISING && !knows[p] && found[p] > leads[p] -> stepDown(p)
	:: else ->
		if
		:: phase[p] == PREPARING -> final[p] = 0; forget(p)
		:: else
		fi;
		phase[p] = LEADING; leads[p] = b; try[p] = 0; yes[p] = 0;
		open[p] = found[p] != 0 && !knows[p];
		spoke[b] = open[p];
		final[p] = final[p] || !open[p];
		found[p] = 0;
		JUDGE
	fi
}

#define GAVEUP(n, b)   (consent[b] != 0 && leaseOf[n] != 0 && OWNER(consent[b]) == OWNER(leaseOf[n]) && OLDENOUGH(n, b))
#ifdef FAULT_CONSENT_ANY
#define OLDENOUGH(n, b) (1)
#else
#define OLDENOUGH(n, b) (consent[b] >= leaseOf[n])
#endif
#ifdef FAULT_NO_REFUSAL
#define REFUSES(n, b)  (0)
#else
#define REFUSES(n, b)  (leaseLeft[n] > 0 && OWNER(leaseOf[n]) != OWNER(b) && !GAVEUP(n, b))
#endif

/* Member n and ballot b of its owner. */
proctype Acceptor(byte n; byte b) {
	byte k;
end:	do
	/* Phase 1b: refused while another's lease runs, or this member is barred. */
	:: d_step { asked[b] && promised[n] < b && barred[n] == 0 && !REFUSES(n, b) && (CONFIG(OWNER(b)) & BIT(n)) &&
	            (!knows[n] || knows[OWNER(b)]) &&
	            (n >= 2 || n == OWNER(b) || !RUNS(n % 2)) ->
		yield(n, b);
		promised[n] = b;
		if
		:: try[OWNER(b)] == b ->
			yes[OWNER(b)] = yes[OWNER(b)] | BIT(n);
			if
			:: member[n] > found[OWNER(b)] -> found[OWNER(b)] = member[n]
			:: else
			fi;
			if
			:: MAJORITY(yes[OWNER(b)], CONFIG(OWNER(b))) && (yes[OWNER(b)] & BIT(OWNER(b))) -> adopt(OWNER(b), b)
			:: else
			fi
		:: else
		fi;
		k = 0
	   }
	/* A heartbeat grants the lease anew. The answer counts at once, from when the
	 * heartbeat was sent, or never. */
	:: d_step { n != OWNER(b) && helloOf[P(OWNER(b), n)] == b && promised[n] <= b ->
		yield(n, b);
		promised[n] = b;
		leaseOf[n] = b; leaseLeft[n] = LEASE;
		if
		:: phase[OWNER(b)] >= LEADING && leads[OWNER(b)] == b && hello[P(OWNER(b), n)] < age[P(OWNER(b), n)] ->
			age[P(OWNER(b), n)] = hello[P(OWNER(b), n)];
			JUDGE
		:: else
		fi;
		k = 0
	   }
#ifdef MEMBERSHIP
	/* Phase 2b of the membership. */
	:: d_step { spoke[b] && promised[n] <= b && member[n] != b ->
		yield(n, b);
		promised[n] = b; member[n] = b;
		accepted[b] = accepted[b] | BIT(n);
		k = 0
	   }
	/* It is chosen: what was accepted at this very ballot counts. */
	:: d_step { n < 2 && told[b] && promised[n] <= b && member[n] == b && !knows[n] && n != OWNER(b) ->
		learn(n);
		k = 0
	   }
#endif
	od
}

#ifdef MEMBERSHIP
/* Proposer n hears from proposer m that the membership is chosen. */
proctype Learner(byte n; byte m) {
	byte k;
end:	do
	:: d_step { knows[m] && !knows[n] && (phase[n] < LEADING || member[m] > leads[n]) ->
		if
		:: phase[n] >= LEADING -> stepDown(n)
		:: else
		fi;
		member[n] = member[m];
		learn(n);
		k = 0
	   }
	od
}
#endif

/* Member n forgets what is in memory. */
proctype Crash(byte n) {
	byte k;
end:	do
	:: atomic { crashes < CRASHES && promised[n] != 0 ->
		d_step {
			crashes++;
			if
			:: n < 2 -> stepDown(n); renounced[n] = 0
			:: else
			fi;
			leaseOf[n] = 0; leaseLeft[n] = 0;
#ifndef FAULT_NO_RESTART_WAIT
			barred[n] = LEASE;
#endif
			k = 0
		};
		if
		:: true
		:: knows[n] -> knows[n] = 0
		fi
	   }
	od
}

/* Proposer p with its ballot b. */
proctype Proposer(byte p; byte b) {
	byte k;
end:	do
	/* Phase 1a, as a candidate, and as one to whom leadership was handed over. */
	:: d_step { promised[p] < b && !SKIPS(p, b) && try[p] < b && phase[p] < LEADING &&
	            (CONFIG(p) & BIT(p)) && leaseLeft[p] == 0 && barred[p] == 0 ->
		stepDown(p);
		phase[p] = PREPARING; try[p] = b; asked[b] = 1;
		k = 0
	   }
	:: d_step { promised[p] < b && !SKIPS(p, b) && try[p] < b && phase[p] < LEADING &&
	            (CONFIG(p) & BIT(p)) && renounced[p] != 0 && renounced[p] >= leaseOf[p] ->
		stepDown(p);
		if
		:: leaseOf[p] != 0 && OWNER(leaseOf[p]) != p -> leaseLeft[p] = 0
		:: else
		fi;
		phase[p] = PREPARING; try[p] = b; asked[b] = 1; consent[b] = renounced[p];
		k = 0
	   }
	/* A leader raises its ballot; leadership and lease go on. */
	:: d_step { promised[p] < b && !SKIPS(p, b) && try[p] < b && phase[p] >= LEADING ->
		phase[p] = RAISING; try[p] = b; yes[p] = 0; found[p] = 0; asked[b] = 1
	   }
#ifdef MEMBERSHIP
	:: d_step { p == 0 && phase[p] == LEADING && leads[p] == b && final[p] && !open[p] && !knows[p] ->
		open[p] = 1; spoke[b] = 1
	   }
	:: d_step { phase[p] == LEADING && leads[p] == b && open[p] && MAJORITY(accepted[b], OLD) ->
		open[p] = 0; knows[p] = 1; told[b] = 1; member[p] = b;
		if
		:: NEW & BIT(p) -> phase[p] = RAISING
		:: else -> stepDown(p)
		fi;
		JUDGE;
		k = 0
	   }
#endif
	/* Leadership is renounced in favour of the other. */
	:: d_step { phase[p] >= LEADING && leads[p] == b && handovers < HANDOVERS ->
		handovers++;
		stepDown(p);
		leaseOf[p] = b; leaseLeft[p] = LEASE;
		renounced[1 - p] = b;
		k = 0
	   }
	/* Leadership ends. */
	:: d_step { phase[p] >= LEADING && leads[p] == b -> stepDown(p); k = 0 }
	od
}

/* The heartbeats of proposer p to member n. */
proctype Pulse(byte p; byte n) {
end:	do
	:: d_step { phase[p] == LEADING && (helloOf[P(p, n)] != leads[p] || hello[P(p, n)] != 0) ->
		helloOf[P(p, n)] = leads[p]; hello[P(p, n)] = 0
	   }
	od
}

inline count(t, by) {
	t = (t > by -> t - by : 0)
}

inline grow(t, by) {
	t = (t + by < HELD -> t + by : HELD)
}

inline pass(n, by) {
	count(barred[n], by);
	count(leaseLeft[n], by);
	if
	:: n < 2 ->
		for (k : 0 .. N - 1) {
			grow(age[P(n, k)], by);
			grow(hello[P(n, k)], by);
			if
			:: hello[P(n, k)] == HELD -> helloOf[P(n, k)] = 0 /* too late to count: lost */
			:: else
			fi
		}
	:: else
	fi;
	k = 0
}

proctype Clock() {
	byte k, n, by;
end:	do
	:: atomic {
		n = 0;
		do
		:: n < N ->
#ifdef SAME_RATE
			by = SLOW;
#else
			if
			:: by = SLOW
			:: by = FAST
			fi;
#endif
			d_step { pass(n, by); n++ }
		:: else -> break
		od;
		n = 0; by = 0
	   }
	od
}

init {
	byte n, b;
	byte k;
	atomic {
		for (n : 0 .. N - 1) {
			run Crash(n);
			for (b : 1 .. BALLOTS) { run Acceptor(n, b) }
#ifdef MEMBERSHIP
			if
			:: n < 2 -> run Learner(n, 1 - n)
			:: else
			fi
#endif
		}
		for (b : 0 .. 1) {
			for (k : 0 .. N - 1) {
				age[P(b, k)] = HELD; hello[P(b, k)] = HELD;
				if
				:: k != b -> run Pulse(b, k)
				:: else
				fi
			}
		}
		for (b : 1 .. BALLOTS) { run Proposer(OWNER(b), b) }
		run Clock();
		n = 0; b = 0; k = 0
	}
}
