"""A recommender by matrix factorisation: its model in torch, its data, and the sweep that trains and registers it.

`data` reads ratings of MovieLens or makes some, `model` is the model and its training, `sweep` is the program that
dispatches. The service that answers requests with a registered model is in the folder `service`, on its own.

Terms: users and items have *ids* in the data, and *rows* here: numbers from 0 in the order of the ids.
"""
