"""The capstone: from documents to a served page with citations, judged by gates."""
