"""The recommender as a web service: FastAPI on uvicorn, and NumPy for the model.

``python -m recommender_service`` starts it. It stands alone: neither covalent_cirro nor torch is imported, because the
answer to a request is one matrix product, and torch's build for CPUs alone is larger than the rest of the image.
"""
