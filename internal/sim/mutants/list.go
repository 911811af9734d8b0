package mutants

import "github.com/phxsql/phxsql/internal/sim"

const (
	acceptor = "paxos/acceptor.go"
	core     = "paxos/core.go"
	leader   = "paxos/leader.go"
	lease    = "paxos/lease.go"
	members  = "paxos/members.go"
	proposer = "paxos/proposer.go"
	read     = "paxos/read.go"
	recovery = "internal/replica/recover.go"
	replica  = "internal/replica/replica.go"
	repair   = "internal/replica/repair.go"
	walSync  = "wal/sync.go"
	walOpen  = "wal/recover.go"
)

// All lists the mutants: the classics, the violations found in other libraries,
// the faults that this code once had, and others.
var All = []Mutant{
	{Name: "answer-before-sync", Classic: true, Why: "promises and acceptances are sent before they are on disk", File: replica,
		Old: `r.owed = append(r.owed, promise{r.appended, eff.Vows})`, New: `r.owed = append(r.owed, promise{0, eff.Vows})`},
	{Name: "promise-forgotten", Classic: true, Why: "a restarted acceptor has forgotten its promise", File: recovery,
		Old: `st.Promised = paxos.Ballot{Round: binary.LittleEndian.Uint64(b), Node: paxos.NodeID(binary.LittleEndian.Uint64(b[8:]))}`, New: `st.Promised = paxos.Ballot{}`},
	{Name: "commit-by-index", Classic: true, Why: "an accepted value below the commit index counts, whatever its ballot", File: acceptor,
		Old: "\tif c.durableAt == c.ballot {\n\t\tc.learnChosen(min(c.heard, c.durable))\n\t}", New: "\tc.learnChosen(min(c.heard, c.win.last()))"},
	{Name: "lease-from-receipt", Classic: true, Scenario: "lease-from-receipt", Why: "the leader counts its lease from when the answer came", File: lease,
		Old: `p.until = max(p.until, m.Sent.Add(c.counted(length)))`, New: `p.until = c.now.Add(c.counted(length))`},
	{Name: "no-restart-wait", Classic: true, Scenario: "no-restart-wait", Why: "a restarted acceptor does not wait for leases it may have granted", File: core,
		Old: `c.barred = now.Add(max(cfg.Lease, st.Lease))`, New: `c.barred = now`},

	{Name: "implicit-success", Classic: true, Scenario: "implicit-success", Why: "a proposal for the next instance is taken for news that the ones before are chosen", File: acceptor,
		Old: `c.countChosen(m.Chosen)`, New: `c.countChosen(max(m.Chosen, m.First-1))`},
	{Name: "promise-shrinks", Classic: true, Scenario: "promise-shrinks", Why: "a learned value overwrites the promise with its own ballot", File: acceptor,
		Old: "\t\tc.store(e)\n\t\tthrough = e.Instance",
		New: "\t\tc.store(e)\n\t\tc.promised = e.Ballot\n\t\tc.eff.Records = append(c.eff.Records, Record{Kind: RecordPromise, Ballot: e.Ballot})\n\t\tthrough = e.Instance"},
	{Name: "phase1-over-membership", Classic: true, Scenario: "phase1-over-membership", Why: "promises of the old members are used under the new ones", File: leader,
		Old: "\tc.replicate(true)\n\tc.raise()", New: "\tif c.lead.start == 0 {\n\t\tc.append(Noop, nil)\n\t\tc.lead.start = c.lead.last\n\t}\n\tc.replicate(true)"},

	{Name: "attempt-over-membership", Story: "attempt_ends_with_members", Why: "an attempt to lead outlives a membership learned in its midst", File: core,
		Old: "\tc.abandonAttempt()\n\tif c.phase == leading {\n\t\tc.lead.setPeers", New: "\tif c.phase == leading {\n\t\tc.lead.setPeers"},
	{Name: "handover-of-unwon-ballot", Story: "transfer_while_raising", Why: "a transfer renounces a ballot that is not on disk", File: proposer,
		Old: "\tb := c.ballot\n", New: "\tb := c.promised\n"},
	{Name: "members-apart-from-chosen", Every: sim.Reshuffle, Why: "after a crash a membership is valid before its instance is known to be chosen", File: recovery,
		Old: "\t\tst.Chosen = max(st.Chosen, at)\n", New: ""},
	{Name: "removed-not-told", Story: "removed", Why: "a member that was removed is refused and not told why", File: acceptor,
		Old: `r == RejectBehind || r != RejectNone && !ok {`, New: `r == RejectBehind && (ok || !ok) {`},
	{Name: "learned-not-vowed", Story: "learned_is_vowed", Why: "what was learned from another member is never acknowledged as durable", File: acceptor,
		Old: ` || c.vowed < c.held {`, New: ` {`},
	{Name: "trim-unknown", Test: "TestTrimProvesChosen", Why: "after a restart a trimmed log does not tell that what was trimmed is chosen", File: recovery,
		Old: `kept > 0 {`, New: `kept > 0 && log == nil {`},

	{Name: "read-without-lease", Every: sim.Reads, Why: "a leader answers readers after its lease", File: read,
		Old: `c.now < c.LeaseEnd() && `, New: ``},
	{Name: "read-before-ready", Every: sim.Reads, Why: "a new leader answers readers before it knows what was chosen", File: read,
		Old: ` && c.chosen >= c.lead.start`, New: ``},

	{Name: "install-forgets-promise", Every: sim.Forget, Why: "a snapshot takes the promise along with the log", File: recovery,
		Old: `log.Append(wal.Record{Group: group, Kind: wal.KindState, Key: stateSnapshot,`,
		New: `log.Append(wal.Record{Group: group, Kind: wal.KindState, Key: stateBallot, Head: make([]byte, 16)}, wal.Record{Group: group, Kind: wal.KindState, Key: stateSnapshot,`},
	{Name: "install-before-sync", Every: sim.Forget, Why: "a member goes on from a snapshot that is not on disk yet", File: recovery,
		Old: `if _, err := log.Sync(); err != nil {`, New: `if err := error(nil); err != nil {`},
	{Name: "install-keeps-members", Every: sim.Forget, Why: "behind a snapshot the members are those from before", File: recovery,
		Old: `if at > newest {`, New: `if at > newest && key == stateMembers {`},
	{Name: "install-keeps-log", Every: sim.Forget, Why: "what a snapshot stands for stays in the log, with holes", File: replica,
		Old: "\tforget(log, group)\n", New: ""},
	{Name: "install-torn", Test: "TestASnapshotIsInstalledAsAWhole", Why: "a crash may come between the record of a snapshot and the trim of the log", File: recovery,
		Old: `	if _, err := log.Sync(); err != nil {
		return fmt.Errorf("install snapshot through %d: %w", through, err)
	}
	return nil
}

// forget gives up what lies in the log below a snapshot. It need not be chosen.
func forget(log Log, group wal.Group) {
	if b, ok := log.State(group, stateSnapshot); ok {`,
		New: `	log.TrimBelow(group, uint64(through)+1)
	if _, err := log.Sync(); err != nil {
		return fmt.Errorf("install snapshot through %d: %w", through, err)
	}
	return nil
}

// forget gives up what lies in the log below a snapshot. It need not be chosen.
func forget(log Log, group wal.Group) {
	if b, ok := log.State(group, stateSnapshot); ok && b == nil {`},
	{Name: "old-snapshot", Test: "TestAnOldSnapshotIsRefused", Why: "a member that has learned more meanwhile goes back to a snapshot", File: recovery,
		Old: `chosen >= through || r.core.`, New: `r.core.`},
	{Name: "trimmed-not-told", Every: sim.Forget, Why: "who asks for what is trimmed gets no answer", File: replica,
		Old: `max(oldest, paxos.Instance(first)) > f.First {`, New: `oldest > f.First {`},

	{Name: "failed-sync-counts", Every: sim.Disk, Why: "a sync that fails is tried again, and the second success counts", File: walSync,
		Old: `	if err := seg.file.Sync(); err != nil {`, New: `	if err := seg.file.Sync(); err != nil && seg.file.Sync() != nil {`},
	{Name: "tail-not-rewritten", Every: sim.Disk, Why: "a new process takes for durable what it reads behind a failed sync", File: walOpen,
		Old: `		if s == r.lastSeg {`, New: `		if s == nil {`},
	{Name: "no-space-is-success", Every: sim.Disk, Why: "what there was no room for counts as written", File: walSync,
		Old: `			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}`, New: `			return nil
		}`},
	{Name: "damaged-vote-ignored", Every: sim.Disk, Why: "a member runs although the log has lost what it may have voted for", File: repair,
		Old: `paxos.Instance(d.Record.Index) <= st.Chosen:`, New: `(paxos.Instance(d.Record.Index) <= st.Chosen || len(ds) > 0):`},
	{Name: "damaged-promise-ignored", Every: sim.Disk, Why: "a member runs although the log has lost its promise", File: repair,
		Old: `d.Record.Kind == 0 ||`, New: `d.Record.Kind != wal.KindEntry ||`},
	{Name: "unknown-damage-ignored", Every: sim.Disk, Why: "a member runs although nobody can tell what its log has lost", File: repair,
		Old: `		default:
			return nil, refuse(`, New: `		case !d.Known:
		default:
			return nil, refuse(`},
	{Name: "older-record-counts", Every: sim.Disk, Why: "where the newest record of an entry is damaged, the one before it counts", File: walOpen,
		Old: `		r.apply(seg, foundRecord{head: f.head, off: f.off})
`, New: ``},
	{Name: "damage-not-repaired", Every: sim.Disk, Why: "damaged entries are not asked for", File: repair,
		Old: `		r.rotten[i] = true
`, New: ``},
	{Name: "damage-hides-the-log", Test: "TestWhatIsDamagedHereIsLackedThere", Why: "who asks for what is damaged at the leader gets no answer", File: replica,
		Old: `				oldest = i + 1
`, New: ``},
	{Name: "proposals-mend", Test: "TestOnlyWhatIsChosenMends", Why: "a damaged entry is repaired from a proposal, which need not be chosen", File: repair,
		Old: `ev.Message.Kind == paxos.MsgLearn && `, New: ``},

	{Name: "impatient-candidate", Every: sim.Far, Why: "a candidate gives members that are far away no more time than those nearby", File: proposer,
		Old: `		c.patience *= 2
`, New: ``},
	{Name: "phase1-in-what-is-left", Every: sim.Far, Why: "phase 1 has only the time that the canvass has left over", File: proposer,
		Old: `		c.await()
		c.prepare(false)
`, New: `		c.prepare(false)
`},

	{Name: "lowest-ballot", Why: "phase 1 adopts the value of the lowest ballot", File: proposer,
		Old: `case c.try.found[k].Ballot.Less(e.Ballot):`, New: `case e.Ballot.Less(c.try.found[k].Ballot):`},
	{Name: "half-is-enough", Why: "half of an even number of voters is taken for a majority", File: members,
		Old: `return n/2 + 1`, New: `return (n + 1) / 2`},
	{Name: "accept-below-promise", Why: "an acceptor accepts below its promise", File: acceptor,
		Old: "\tif m.Ballot.Less(c.promised) {\n\t\tc.free(Message{Kind: MsgAccepted", New: "\tif m.Ballot.Less(c.ballot) {\n\t\tc.free(Message{Kind: MsgAccepted"},
	{Name: "gap-accepted", Why: "an acceptor acknowledges what follows a gap", File: acceptor,
		Old: `if m.First > c.held+1 {`, New: `if m.First > c.held+1 && len(m.Entries) == 0 {`},
	{Name: "votes-of-any-ballot", Story: "stale_ack", Why: "acknowledgements of an earlier ballot count", File: leader,
		Old: "\tif c.phase != leading || m.Ballot != c.ballot {\n\t\treturn\n\t}\n\tp := c.lead.peer(m.From)\n\tif p == nil {", New: "\tif c.phase != leading {\n\t\treturn\n\t}\n\tp := c.lead.peer(m.From)\n\tif p == nil {"},
	{Name: "match-kept-by-raise", Story: "ack_before_raise", Why: "acknowledgements under the old ballot count after a raise", File: leader,
		Old: `p.match, p.shipped, p.probing = 0, 0, p.id != self`, New: `p.shipped, p.probing = 0, p.id != self`},
	{Name: "entries-forgotten", Why: "a restarted acceptor does not report what it accepted", File: core,
		Old: "\t\tc.win.put(e)\n\t\tc.sawRound(e.Ballot)", New: "\t\tc.sawRound(e.Ballot)"},
	{Name: "behind-may-lead", Why: "a candidate that lacks chosen instances is promised to", File: acceptor,
		Old: "\tcase m.Chosen < c.chosen:\n\t\treturn RejectBehind\n", New: ""},
	{Name: "outvoted-leads-on", Story: "outvoted", Why: "a leader goes on although another proposer was at its instances", File: proposer,
		Old: `if c.outvoted() {`, New: `if c.outvoted() && c.cfg.Self == 0 {`},
	{Name: "told-across-terms", Why: "proposers of a lost term are told what was chosen at their instances", File: replica,
		Old: "\tr.term = t\n\tr.lose()\n", New: "\tr.term = t\n"},
	{Name: "pipeline-over-barrier", Every: sim.Reshuffle, Why: "values are proposed behind a membership that is not chosen yet", File: leader,
		Old: ` && c.lead.barrier == 0 && c.lead.wanted == nil &&`, New: ` &&`},
	{Name: "teaches-unchosen", Why: "accepted entries are taught as chosen", File: acceptor,
		Old: `c.win.from(first, c.chosen, c.cfg.MaxMessage)`, New: `c.win.from(first, c.win.last(), c.cfg.MaxMessage)`},
	{Name: "clock-error-ignored", Why: "the lease does not allow for clocks of different rates", File: lease,
		Old: `float64(length) * (1 - c.cfg.ClockError) / (1 + c.cfg.ClockError)`, New: `float64(length)`},
	{Name: "lease-cut-short", Why: "a follower refuses others for half of the lease", File: lease,
		Old: `end := c.now.Add(d)`, New: `end := c.now.Add(d / 2)`},
	{Name: "lease-of-own-length", Every: sim.Lengths, Why: "the leader counts its own length, whatever is granted", File: lease,
		Old: "\tlength := m.Lease\n", New: "\tlength := c.grants.length\n"},
	{Name: "longest-grant-counts", Every: sim.Lengths, Why: "the lease lasts until the longest grant ends, not until a majority's do", File: lease,
		Old: `c.lead.lease = ends[n-c.members.Quorum()]`, New: `c.lead.lease = ends[n-1]`},
	{Name: "grant-cut-short", Every: sim.Lengths, Why: "a shorter length takes back what was granted", File: lease,
		Old: `		end = max(end, c.leaseEnd)
`, New: `		end = max(end, c.now)
`},
	{Name: "restart-waits-as-configured", Every: sim.Lengths, Why: "a restarted member waits for the length in its configuration, not for the longest that it granted", File: core,
		Old: `max(cfg.Lease, st.Lease)`, New: `cfg.Lease`},
	{Name: "bound-relaxed-early", Story: "lease_length", Why: "a shorter bound is recorded while longer leases run", File: lease,
		Old: `c.grants.bound > d && c.now >= c.grants.longUntil`, New: `c.grants.bound > d`},
	{Name: "length-said-before-sync", Story: "lease_length_restart", Why: "a longer lease is granted before its length is on disk", File: lease,
		Old: `c.grants.assured = min(c.grants.assured, d)`, New: `c.grants.assured = d`},
	{Name: "old-leader-granted-less", Story: "lease_length_mixed", Why: "a leader of a release that counts by the configuration is granted less", File: lease,
		Old: `		d = c.longestGrant()
	}
	end`, New: `		d = c.grants.length
	}
	end`},
	{Name: "old-answer-counts-as-own", Every: sim.Lengths, Why: "what a member of such a release grants is taken to be as long as the own length", File: lease,
		Old: `		length = c.cfg.Lease
`, New: `		length = c.grants.length
`},
	{Name: "consent-for-ever", Story: "stale_consent", Why: "a leader's renunciation holds for its later leases too", File: acceptor,
		Old: `return consent.Node == c.leaseOf.Node && !consent.Less(c.leaseOf)`, New: `return consent.Node == c.leaseOf.Node`},
	{Name: "transfer-keeps-lease", Why: "a lease goes on after it was renounced", File: proposer,
		Old: "\tc.replicate(false)\n\tc.stepDown()\n", New: "\tc.replicate(false)\n"},
	{Name: "own-promise-not-on-disk", Story: "election", Why: "a candidate leads before its own promise is on disk", File: proposer,
		Old: `case slices.Contains(c.try.yes, c.cfg.Self):`, New: `case len(c.try.yes) > 0:`},
}
