"""What all electrons of one server share: clients, the job watcher, job definitions, copies of logs."""
