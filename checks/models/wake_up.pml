/* The wake-up: transactions of apps, and the leader, which looks again and again or sleeps until it is woken.

   What is modelled: the wake-up lock (shared by transactions, exclusive by the sleeping leader), NOTIFY at commit, rollback, a
   leader that dies awake or asleep and is followed by another, and a stranger that holds the lock in either mode.

   -DONE_STATEMENT takes the lock and looks in one statement, whose snapshot is older than the lock.
   -DEARLY_RELEASE releases the lock before the commit can be seen; PostgreSQL does it after. */

#define TRANSACTIONS 3

bool visible[TRANSACTIONS] = false;   /* committed */
bool seen[TRANSACTIONS] = false;      /* by a leader's look */
byte shared = 0;                      /* holders of the lock in the shared mode */
bool exclusive = false;               /* the leader, or a stranger, holds it alone */
bool notified = false;                /* a notification waits for the leader's session */
bool leading = false;
bool stranger_exclusive = false;
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
    bool promised = false;      /* it holds the lock, so the leader does not sleep before its end */
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
        /* NOTIFY is delivered after the commit can be seen */
        if
        :: sends -> atomic { if :: leading -> notified = true :: else -> skip fi }
        :: else -> skip
        fi;
#ifndef EARLY_RELEASE
        release(promised)
#endif
    :: true -> seen[t] = true; release(promised) /* rolled back: there is nothing to see */
    fi
}

inline look() {
    atomic {
        byte i = 0;
        found = false;
        do
        :: i < TRANSACTIONS ->
            if
            :: visible[i] && !seen[i] -> seen[i] = true; found = true
            :: else -> skip
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

proctype leader() {
    bool found = false;
    bool armed = false;
elected:
    leading = true;             /* LISTEN, and then the first look */
    look();
awake:
    do
    :: look();
        if
        :: found -> skip
        :: !found ->
#ifdef ONE_STATEMENT
            look();
#endif
            atomic {
                if
                :: !exclusive && shared == 0 -> exclusive = true; armed = true
                :: else -> armed = false
                fi
            };
            if
            :: armed ->
#ifndef ONE_STATEMENT
                look();
#endif
                /* asleep */
                do
                :: atomic { notified -> notified = false }; look(); break
                :: atomic { deaths < 1 -> deaths++; exclusive = false; armed = false; leading = false; notified = false };
                    goto elected
                od;
                exclusive = false;
                armed = false
            :: else -> skip
            fi
        fi
    :: atomic { deaths < 1 -> deaths++; leading = false; notified = false }; goto elected
    od
}

/* Another login of the database: it takes the lock as it likes, and lets go when it likes, or never. */
proctype stranger() {
    bool got = false;
    if
    :: try_shared(got); if :: release(got) :: true fi
    :: atomic { !exclusive && shared == 0 -> exclusive = true; stranger_exclusive = true };
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
        run leader(); run stranger()
    }
}

ltl none_unseen { [] ((visible[0] -> <> seen[0]) && (visible[1] -> <> seen[1]) && (visible[2] -> <> seen[2])) }
