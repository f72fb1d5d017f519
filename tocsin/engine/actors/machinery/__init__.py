"""What all delivery actors share: admission, mailbox, circuit breaker, supervision."""
