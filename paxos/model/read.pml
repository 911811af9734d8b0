/*
 * Read index: a read on any member sees everything that was answered to anybody
 * before it began.
 *
 * A model of package paxos for spin. It stands on the two others and takes for granted
 * what they show: what is chosen stays chosen, a leader under a higher ballot ends what
 * lower ones can get chosen, and at most one member holds a lease. Here are the questions
 * of a member to the leader, the turns in which it answers, their clock, late and doubled
 * messages, and restarts of who asks. docs/paxos-model.md maps the steps to functions.
 *
 * Members 0 and 1 lead by turns, member 2 asks. The log is a count of chosen instances.
 *
 * Sizes and planted faults come with -D; model_test.go has the runs.
 */

#ifndef TERMS
#define TERMS 3        /* leaderships, each under a higher ballot */
#endif
#ifndef LOG
#define LOG 3          /* instances */
#endif
#ifndef ASKS
#define ASKS 2         /* questions */
#endif
#ifndef RESTARTS
#define RESTARTS 1     /* of the member that asks */
#endif

#define READER 2

byte term;             /* newest leadership: a majority has promised */
byte chosen;           /* chosen through, known or not */
byte lease;            /* the leadership whose lease runs, 0 for none: by lease.pml there is one at most */
byte leads[2];         /* leadership of a member, as far as it knows; it may be over */
byte start[2];         /* it knows all from before its term when it knows through here */
byte own[2];           /* chosen through, when its term ended: its own proposals are chosen through here */
byte known[3];         /* known to be chosen; at the reader also applied */
byte answered;         /* the newest instance that any proposer or reader was told of */

/* A turn of a leader: it takes what has come, reads the clock, answers. */
bit  turning[2];
byte taken[2];         /* set of questions */
bit  held[2];          /* the lease runs, at the reading of the clock */

/* Questions. */
byte asked;            /* set: sent, may arrive at any time and often */
byte life[ASKS];       /* of the reader that asked */
byte floor[ASKS];      /* answered when it was asked: what the read must see */
byte reply[ASKS * 2];  /* 1 + the index that leader p answered; 0: none */
byte waits;            /* set: no answer taken yet */
byte index[ASKS];      /* 1 + the index of the answer that was taken; 0: none */
byte lives;

#define BIT(n)   (1 << (n))
#define IN(s, n) (((s) >> (n)) & 1)
#define R(q, p)  ((q) * 2 + (p))
#define LAST(p)  (leads[p] == term -> chosen : own[p]) /* newest instance that it may learn of without stepping down */

#ifdef FAULT_READ_WITHOUT_LEASE
#define MAY(p)   (leads[p] != 0 && known[p] >= start[p])
#else
#ifdef FAULT_READ_BEFORE_READY
#define MAY(p)   (leads[p] != 0 && held[p])
#else
#define MAY(p)   (leads[p] != 0 && held[p] && known[p] >= start[p])
#endif
#endif

/* Member p as a leader. */
proctype Leader(byte p) {
end:	do
	/* It is elected when no other's lease runs, and proposes a no-op behind what it
	 * has found. */
	:: d_step { term < TERMS && (lease == 0 || lease == leads[p]) && chosen < LOG && !turning[p] ->
		if
		:: term != 0 && leads[1 - p] == term -> own[1 - p] = chosen
		:: else
		fi;
		term++; leads[p] = term; start[p] = chosen + 1; lease = 0
	   }
	/* A majority grants the lease; it ends at any time. */
	:: d_step { leads[p] == term && term != 0 && lease == 0 -> lease = term }
	:: d_step { lease != 0 && leads[p] == lease -> lease = 0 }
	/* A majority has the next instance; the leader learns of it, at once or later, and
	 * tells the proposer. */
	:: d_step { leads[p] == term && term != 0 && chosen < LOG -> chosen++ }
	:: d_step { leads[p] != 0 && known[p] < LAST(p) ->
		known[p]++;
		if
		:: answered < known[p] -> answered = known[p]
		:: else
		fi
	   }
	/* It hears of the other's leadership. */
	:: d_step { leads[p] != 0 && leads[p] < term && !turning[p] -> leads[p] = 0; start[p] = 0; own[p] = 0 }
	:: d_step { leads[p] == 0 && known[p] < chosen -> known[p]++ }
	/* A turn begins. Between its steps any time may pass. */
#ifdef FAULT_READ_OLD_CLOCK
	:: d_step { leads[p] != 0 && !turning[p] -> turning[p] = 1; held[p] = (lease == leads[p]) }
	:: d_step { turning[p] && taken[p] != asked -> taken[p] = asked }
#else
	:: d_step { leads[p] != 0 && !turning[p] && asked != 0 -> turning[p] = 1; taken[p] = asked; held[p] = (lease == leads[p]) }
#endif
	:: d_step { turning[p] ->
		if
		:: MAY(p) && IN(taken[p], 0) -> reply[R(0, p)] = 1 + known[p]
		:: else
		fi;
#if ASKS > 1
		if
		:: MAY(p) && IN(taken[p], 1) -> reply[R(1, p)] = 1 + known[p]
		:: else
		fi;
#endif
		turning[p] = 0; taken[p] = 0; held[p] = 0
	   }
	od
}

/* Question q of the reader. */
proctype Question(byte q) {
	byte k;
end:	do
	:: d_step { !IN(asked, q) && (q == 0 || IN(asked, q - 1)) ->
		asked = asked | BIT(q); waits = waits | BIT(q);
		floor[q] = answered; life[q] = lives
	   }
	/* An answer counts once, for the question whose token it has. */
	:: d_step { IN(waits, q) && life[q] == lives && reply[R(q, 0)] != 0 -> index[q] = reply[R(q, 0)]; waits = waits & ~BIT(q) }
	:: d_step { IN(waits, q) && life[q] == lives && reply[R(q, 1)] != 0 -> index[q] = reply[R(q, 1)]; waits = waits & ~BIT(q) }
#ifdef FAULT_READ_ANY_TOKEN
	:: d_step { q > 0 && IN(waits, q) && life[q] == lives && reply[R(0, 0)] != 0 -> index[q] = reply[R(0, 0)]; waits = waits & ~BIT(q) }
#endif
	/* The read, when all through the index is applied here. */
#ifdef FAULT_READ_UNAPPLIED
	:: d_step { index[q] != 0 && life[q] == lives ->
#else
	:: d_step { index[q] != 0 && life[q] == lives && known[READER] >= index[q] - 1 ->
#endif
		assert(known[READER] >= floor[q]);
		if
		:: answered < known[READER] -> answered = known[READER]
		:: else
		fi;
		index[q] = 0
	   }
	od
}

/* The reader learns, and starts again: what it asked for before is nobody's. */
proctype Reader() {
end:	do
	:: d_step { known[READER] < chosen -> known[READER]++ }
	:: d_step { lives < RESTARTS && waits != 0 -> lives++; waits = 0; known[READER] = 0 }
	od
}

init {
	atomic {
		run Leader(0);
		run Leader(1);
		run Question(0);
#if ASKS > 1
		run Question(1);
#endif
		run Reader()
	}
}
