"""Services in an account: one stack each, with ECS tasks on Fargate behind a load balancer, in a deployment's network.

`service_values` decides what a stack's parameters are, `service_facts` asks AWS what that needs to know, `deploying`
makes and changes a service, `removing` deletes it, `running_service` reads its state. This package must not know the
terminal.
"""
