//! `derive(State)`: the named states of a machine.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{Data, DeriveInput, Error, Fields, Ident, LitStr, Path, Result, Token, Variant};

use crate::attribute::{self, Key};

/// Writes the implementation.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let mut facade: Option<Path> = None;
    attribute::read_all(&input.attrs, "state", |key, input| match key {
        Key::Word(word) if word == "crate" => attribute::keep(
            &mut facade,
            attribute::value(input)?,
            "`crate`",
            word.span(),
        ),
        Key::Word(word) => Err(attribute::unknown(&word, "`crate = path`")),
        Key::Text(text) => Err(Error::new(
            text.span(),
            "a name belongs to one state: put `#[state(\"..\")]` on a variant",
        )),
    })?;
    let variants = variants(input)?;
    let names = names(variants)?;
    let variants: Vec<_> = variants.iter().map(|variant| &variant.ident).collect();
    let ident = &input.ident;
    let root = attribute::root(facade.as_ref());
    Ok(quote! {
        #[automatically_derived]
        impl #root::SagaState for #ident {
            const ALL: &'static [Self] = &[#(Self::#variants),*];

            fn name(self) -> &'static str {
                match self {
                    #(Self::#variants => #names,)*
                }
            }
        }
    })
}

fn variants(input: &DeriveInput) -> Result<&Punctuated<Variant, Token![,]>> {
    let Data::Enum(data) = &input.data else {
        let fact = "the states of a machine are the variants of an enum; for data derive `Saga`";
        return Err(Error::new(input.ident.span(), fact));
    };
    if !input.generics.params.is_empty() {
        let fact = "the states of a machine are fixed, so their enum cannot be generic";
        return Err(Error::new_spanned(&input.generics, fact));
    }
    if data.variants.is_empty() {
        let fact = "a machine has at least one state; add a variant";
        return Err(Error::new(input.ident.span(), fact));
    }
    let with_fields = data
        .variants
        .iter()
        .find(|variant| !matches!(variant.fields, Fields::Unit));
    with_fields.map_or(Ok(&data.variants), |variant| {
        let fact = "a state is a name without fields; what belongs to the instance is a field of \
                    the saga's data";
        Err(Error::new_spanned(&variant.fields, fact))
    })
}

/// Returns the stored name of each variant.
fn names(variants: &Punctuated<Variant, Token![,]>) -> Result<Vec<LitStr>> {
    let mut taken = HashSet::new();
    let mut names = Vec::new();
    for variant in variants {
        let name = name(variant)?;
        attribute::check_name(&name, 100)?;
        if !taken.insert(name.value()) {
            let name = name.value();
            let fact = format!("two states are named `{name}`; name one `#[state(\"..\")]`");
            return Err(Error::new(variant.ident.span(), fact));
        }
        names.push(name);
    }
    Ok(names)
}

fn name(variant: &Variant) -> Result<LitStr> {
    let mut given = None;
    attribute::read_all(&variant.attrs, "state", |key, _| match key {
        Key::Text(name) => {
            let span = name.span();
            attribute::keep(&mut given, name, "the name", span)
        }
        Key::Word(word) => Err(attribute::unknown(
            &word,
            "the name alone: `#[state(\"paid\")]`",
        )),
    })?;
    let derived = || LitStr::new(&kebab_case(&variant.ident), variant.ident.span());
    Ok(given.unwrap_or_else(derived))
}

/// Turns `AwaitingPayment` into `awaiting-payment` and `HTTPDone` into `http-done`.
fn kebab_case(ident: &Ident) -> String {
    let letters: Vec<char> = ident.unraw().to_string().chars().collect();
    let mut name = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(at + 1);
        let begins_word = letter.is_uppercase()
            && before.is_some_and(|before| {
                let ends_acronym = before.is_uppercase() && after.is_some_and(|a| a.is_lowercase());
                before.is_lowercase() || before.is_numeric() || ends_acronym
            });
        if begins_word {
            name.push('-');
        }
        match letter {
            '_' => name.push('-'),
            letter => name.extend(letter.to_lowercase()),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    #[test]
    fn variants_become_words_with_hyphens() {
        let cases = [
            ("Paid", "paid"),
            ("AwaitingPayment", "awaiting-payment"),
            ("HTTPDone", "http-done"),
            ("ReadyForHTTP", "ready-for-http"),
            ("Step2Done", "step2-done"),
            ("A", "a"),
            ("Two_Words", "two-words"),
        ];
        for (variant, name) in cases {
            assert_eq!(kebab_case(&Ident::new(variant, Span::call_site())), name);
        }
    }

    #[test]
    fn a_raw_identifier_loses_its_prefix() {
        assert_eq!(
            kebab_case(&Ident::new_raw("Final", Span::call_site())),
            "final"
        );
    }
}
