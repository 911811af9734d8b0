package node

import "sync"

// notice tells any number of waiters that something has changed. It costs one
// lock when nobody waits.
type notice struct {
	mu      sync.Mutex
	waiting bool
	ch      chan struct{}
}

func (n *notice) init() { n.ch = make(chan struct{}) }

// wait returns a channel that is closed by the next send. What is waited for
// must be looked at after this call.
func (n *notice) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting = true
	return n.ch
}

func (n *notice) send() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting {
		close(n.ch)
		n.init()
		n.waiting = false
	}
}
