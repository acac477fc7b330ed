"""ECS services and application load balancers: tasks are processes or containers, a balancer is a port of the loopback.

| module | what |
| --- | --- |
| `serving` | the services of one region as one object, for the emulator and its CloudFormation |
"""
