// Before anything is shown: the look that the reader chose.
document.body.dataset.theme = localStorage.getItem('theme') || 'auto';
