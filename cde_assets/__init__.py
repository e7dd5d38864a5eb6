"""The asset graph from loan book to released model, and the commands around it."""
