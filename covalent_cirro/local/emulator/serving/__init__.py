"""ECS services and application load balancers: tasks are processes or containers, a balancer is a port of the loopback.

| module | what |
| --- | --- |
| `serving` | ECS and load balancers of one region as one object, for the emulator and its CloudFormation |
| `ecs_api` | ECS over HTTP: `definition_operations`, `service_operations`; `descriptions` has the form of answers |
| `service_model` | clusters, task definitions, services, deployments, tasks |
| `service_scheduler` | decides which tasks start and stop, and how a deployment ends; `ecs` carries that out |
| `task_threads` | tasks as processes or containers of the runtime that jobs have, with credentials and logs |
| `scaling` | desired counts that follow the requests |
| `load_balancers` | balancers of one region, for all threads; they run in an `event_loop` |
| `balancer` | the port of one balancer: forwards requests to targets, redirects, answers |
| `target_groups` | targets, their health checks, draining |
| `request_metrics` | requests counted, in CloudWatch |
"""
