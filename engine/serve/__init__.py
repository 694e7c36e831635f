"""An index served over HTTP: an API for programs, and the page that asks it.

    guard ─► search, embeddings, knn ─► reading (bodies), asking (parts) ─► batcher ─► waiting (turns), answering
          ─► items, where ─► lookups (what the catalog knows) ─► place (bytes inside the corpus), decoders

One thread owns the index and the model and answers everybody's questions in batches; another one looks items up; what
decodes a file runs in processes that may crash. The event loop waits for them and does nothing that takes long.
"""
