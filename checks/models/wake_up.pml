/* The wake-up signal: transactions of apps, and the leader, which scans repeatedly or is idle until it is woken.

   What is modelled: the wake-up lock (shared by transactions, exclusive by the idle leader), NOTIFY at commit, rollback, a
   leader that dies while active or idle and is replaced by another, and another login that holds the lock in either mode.

   -DONE_STATEMENT takes the lock and scans in one statement, whose snapshot is older than the lock.
   -DEARLY_RELEASE releases the lock before the commit is visible; PostgreSQL releases it after. */

#define TRANSACTIONS 3

bool visible[TRANSACTIONS] = false;   /* committed */
bool seen[TRANSACTIONS] = false;      /* by a leader's scan */
byte shared = 0;                      /* holders of the lock in shared mode */
bool exclusive = false;               /* the leader, or another login, holds it exclusively */
bool notified = false;                /* a notification waits for the leader's session */
bool leading = false;
bool other_login_exclusive = false;
byte deaths = 0;

inline try_shared(got) {
    atomic {
        if
        :: !exclusive -> shared++; got = true
        :: else -> got = false
        fi
    }
}

inline commit_visible(t) { visible[t] = true }

inline release(got) {
    if
    :: got -> shared--; got = false
    :: else -> skip
    fi
}

proctype transaction(byte t) {
    bool promised = false;      /* it holds the lock, so the leader does not become idle before its end */
    bool sends = false;
    try_shared(promised);
    sends = !promised;
    if
    :: true ->
#ifdef EARLY_RELEASE
        release(promised);
        commit_visible(t);
#else
        commit_visible(t);
#endif
        /* NOTIFY is delivered after the commit is visible */
        if
        :: sends -> atomic { if :: leading -> notified = true :: else -> skip fi }
        :: else -> skip
        fi;
#ifndef EARLY_RELEASE
        release(promised)
#endif
    :: true -> seen[t] = true; release(promised) /* rolled back: nothing to see */
    fi
}

inline scan() {
    atomic {
        byte i = 0;
        do
        :: i < TRANSACTIONS ->
            if
            :: visible[i] && !seen[i] -> seen[i] = true
            :: else -> skip
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

proctype leader() {
    bool idle = false;
elected:
    leading = true;             /* LISTEN, and then the first scan */
    scan();
    do
    :: scan();
        if
        :: true -> skip             /* it scans again */
        :: true ->                  /* it tries to become idle, whatever it found */
            atomic {
                if
                :: !exclusive && shared == 0 -> exclusive = true; idle = true
                :: else -> idle = false
                fi
            };
            if
            :: idle ->
#ifndef ONE_STATEMENT
                scan();
#endif
                do
                :: atomic { notified -> notified = false }; scan();
                    if
                    :: true -> skip /* it stays idle */
                    :: true -> break
                    fi
                :: atomic { deaths < 1 -> deaths++; exclusive = false; idle = false; leading = false; notified = false };
                    goto elected
                od;
                exclusive = false;
                idle = false
            :: else -> skip
            fi
        fi
    :: atomic { deaths < 1 -> deaths++; leading = false; notified = false }; goto elected
    od
}

/* Another login of the database: it may take the lock at any time, and release it at any time, or never. */
proctype other_login() {
    bool got = false;
    if
    :: try_shared(got); if :: release(got) :: true fi
    :: atomic { !exclusive && shared == 0 -> exclusive = true; other_login_exclusive = true };
        if
        :: exclusive = false
        :: true
        fi
    :: true
    fi
}

init {
    byte t = 0;
    atomic {
        do
        :: t < TRANSACTIONS -> run transaction(t); t++
        :: else -> break
        od;
        run leader(); run other_login()
    }
}

ltl none_unseen { [] ((visible[0] -> <> seen[0]) && (visible[1] -> <> seen[1]) && (visible[2] -> <> seen[2])) }
