/* The lease: one delivery, two workers, a leader, and a database with outages.

   What is modelled: dispatch and claim, the presend check, sending, the far end's acceptance, settling, renewal, the
   end of a lease (tocsin.end_leases), reports (tocsin.report_process), a worker that dies, one that freezes, a lost reply,
   and a claim whose result is lost. Time is modelled by possible events: a lease may run out only if it could not be
   or was not renewed.

   -DNO_GRACE is the protocol before docs/adr/0029: the leader ends each lease that ran out.
   -DNO_NOTE lets the leader end leases before a process recorded the outage.
   -DTIME_LAST lets it read the time after the rest: an outage in between is not seen.
   -DNEVER_ENDED lets it end none: the claims of a dead worker stay.

   Assumption: a living process connects again within tocsin.outage_grace() of the database's return. */

#define WORKERS 2

mtype = { queued, sending, sent };

mtype state = queued;
byte claim = 0;               /* the token that the delivery is claimed under; 0: none */
byte tokens = 0;              /* tokens given so far */

bool leased = false;          /* the lease of the claim */
bool lapsed = false;          /* it ran out */
byte lease_claim = 0;
byte holder = 0;

bool database = true;         /* it is available */
bool long_outage = false;     /* this outage is longer than the rest of a lease */
bool noted = true;            /* a process has reached the database since the outage, and recorded it */
bool outage = false;          /* an outage ended within the grace */

bool alive[WORKERS] = true;
bool frozen[WORKERS] = false;
bool reported[WORKERS] = true;
byte token[WORKERS] = 0;      /* the claim that the worker believes to hold */
bool checked[WORKERS] = false;
bool accepted_by[WORKERS] = false; /* it knows that the far end accepted, and has not written it yet */
bool unknown[WORKERS] = false;     /* the reply was lost */

byte acceptances = 0;
byte exemptions = 0;             /* outcomes that could not be known: each allows one more acceptance */

byte outages = 0, crashes = 0, freezes = 0, lost_replies = 0, lost_claims = 0;

#define runs(w) (alive[w] && !frozen[w])
#define holds(w) (leased && !lapsed && lease_claim == token[w] && claim == token[w])

#ifdef NO_NOTE
#define outage_is_noted true
#else
#define outage_is_noted noted
#endif
#ifdef NO_GRACE
#define holder_could_renew true
#else
#define holder_could_renew (!outage || reported[holder] || !alive[holder])
#endif

inline release_claim() {
    claim = 0;
    leased = false;
    lapsed = false;
    lease_claim = 0
}

proctype worker(byte w) {
    do
    :: atomic { runs(w) && database && token[w] == 0 && state == queued && tokens < 20 ->
        tokens++;
        claim = tokens; state = sending;
        leased = true; lapsed = false; lease_claim = claim; holder = w;
        if
        :: token[w] = claim
        :: lost_claims < 1 -> lost_claims++ /* the connection is lost before the result arrives */
        fi
       }
    /* the presend check: is the claim still ours? */
    :: atomic { runs(w) && database && token[w] != 0 && !checked[w] && !accepted_by[w] && !unknown[w] ->
        if
        :: holds(w) -> checked[w] = true
        :: else -> token[w] = 0
        fi
       }
    /* the first byte follows within 250 ms, or the check is made again */
    :: atomic { runs(w) && checked[w] ->
        checked[w] = false;
        acceptances++;
        assert(acceptances <= 1 + exemptions);
        if
        :: accepted_by[w] = true
        :: lost_replies < 1 -> lost_replies++; unknown[w] = true; exemptions++
        fi
       }
    /* settle: only if the claim is still ours */
    :: atomic { runs(w) && database && accepted_by[w] ->
        if
        :: claim == token[w] -> state = sent; release_claim()
        :: else -> skip
        fi;
        accepted_by[w] = false; token[w] = 0
       }
    :: atomic { runs(w) && database && unknown[w] ->
        if
        :: claim == token[w] -> state = queued; release_claim()
        :: else -> skip
        fi;
        unknown[w] = false; token[w] = 0
       }
    /* the first report after an outage renews the leases of this process */
    :: atomic { runs(w) && database && !reported[w] ->
        if
        :: !noted -> noted = true; outage = true
        :: else -> skip
        fi;
        reported[w] = true;
        if
        :: leased && holder == w -> lapsed = false
        :: else -> skip
        fi
       }
    od
}

/* A lease runs out if its holder is dead, frozen, does not know of it, or cannot reach the database. */
proctype clock() {
    do
    :: atomic { leased && !lapsed &&
        ((!database && long_outage) || !runs(holder) || token[holder] != lease_claim) -> lapsed = true }
    od
}

inline end_lease() {
    if
    :: claim == lease_claim && state == sending -> state = queued
    :: else -> skip
    fi;
    release_claim()
}

proctype leader() {
    bool may_end = false;
    byte ran_out = 0;
    do
    :: atomic { database && !noted -> noted = true; outage = true }
    /* end_leases, in two steps, between which the server may freeze: it reads the time, then the rest */
#ifndef NEVER_ENDED
#ifdef TIME_LAST
    :: atomic { database && leased -> may_end = outage_is_noted && holder_could_renew }
    :: atomic { database && leased && may_end ->
        may_end = false;
        if
        :: lapsed -> end_lease()
        :: else -> skip
        fi
       }
#else
    :: atomic { database && leased && lapsed && ran_out != lease_claim -> ran_out = lease_claim }
    :: atomic { database && leased && ran_out == lease_claim ->
        ran_out = 0;
        if
        :: lapsed && outage_is_noted && holder_could_renew -> end_lease()
        :: else -> skip
        fi
       }
#endif
#endif
    /* the grace is over: all living processes have reported */
    :: atomic { database && outage && (reported[0] || !alive[0]) && (reported[1] || !alive[1]) ->
        outage = false }
    od
}

proctype faults() {
    do
    :: atomic { database && outages < 2 -> outages++; database = false;
        if
        :: long_outage = true
        :: long_outage = false
        fi
       }
    :: atomic { !database -> database = true;
        if
        :: long_outage -> noted = false; reported[0] = false; reported[1] = false
        :: else -> skip
        fi
       }
    /* only the first worker dies or freezes: the other one continues */
    :: atomic { alive[0] && crashes < 1 -> crashes++;
        if
        :: accepted_by[0] || unknown[0] -> exemptions++
        :: else -> skip
        fi;
        alive[0] = false; accepted_by[0] = false; unknown[0] = false; checked[0] = false; token[0] = 0
       }
    :: atomic { alive[0] && !frozen[0] && freezes < 1 -> freezes++; frozen[0] = true; checked[0] = false;
        if
        :: accepted_by[0] -> exemptions++
        :: else -> skip
        fi
       }
    :: atomic { frozen[0] -> frozen[0] = false }
    :: database && !frozen[0] && outages == 2 && crashes == 1 && freezes == 1 -> break
    :: database && !frozen[0] -> break /* fewer faults */
    od
}

init {
    atomic {
        run worker(0); run worker(1); run clock(); run leader(); run faults()
    }
}

ltl ends { <> (state == sent) }
