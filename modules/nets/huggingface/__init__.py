"""Read and write model folders of the Hugging Face format."""
