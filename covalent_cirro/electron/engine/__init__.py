"""What all electrons of a server share: clients, the watcher of jobs, job definitions, copies of logs."""
