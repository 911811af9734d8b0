package drill

import (
	"testing"
	"testing/synctest"
	"time"
)

// idled starts an idler's wait for its next operation, on a port that answered last at a
// time, and returns the wait's end.
func idled(t *testing.T, heard time.Duration) (*Registers, <-chan registerOp) {
	r := &Registers{crew: newCrew(t.Context()), begun: time.Now(), heard: map[string]int64{"one": int64(heard)}, acked: ackedWrite{began: int64(heard)}}
	got := make(chan registerOp, 1)
	r.wg.Go(func() { got <- r.idle("one") })
	t.Cleanup(r.Stop)
	return r, got
}

// longSilent is when a port answered last that is silent from the beginning.
const longSilent = -2 * silentFor

func TestAnIdlerSparesASilentPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, got := idled(t, longSilent)
		<-got
		if d := time.Since(r.begun); d < idleLimit || d > idleLimit+idlePause+2*idleLook {
			t.Errorf("it used the port after %v", d)
		}
	})
}

func TestAnIdlerUsesAPortThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, got := idled(t, time.Hour)
		<-got
		if d := time.Since(r.begun); d > idlePause+2*idleLook {
			t.Errorf("it used the port after %v", d)
		}
		if r.surprises != 0 {
			t.Error("that counts as a surprise")
		}
	})
}

func TestAnIdlerReadsWhatIsNewOnceItsMasterIsDeposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, got := idled(t, longSilent)
		time.Sleep(3 * time.Second) // of the bubble's clock
		r.mu.Lock()
		r.acked = ackedWrite{key: 4, began: r.now()}
		r.mu.Unlock()
		op := <-got
		if d := time.Since(r.begun); d < 3*time.Second || d > 3*time.Second+idleLook+idleSpread {
			t.Errorf("it used the port after %v", d)
		}
		if op != (registerOp{key: 4}) || r.surprises != 1 {
			t.Errorf("it did %+v, %d surprises", op, r.surprises)
		}
	})
}
