//! Reads `#[message(..)]`, `#[saga(..)]`, `#[state(..)]` and what `#[debug_handler(..)]` is given.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Ident, LitInt, LitStr, Meta, Path, Result, Token};

/// What stands at the beginning of one setting.
pub(crate) enum Key {
    /// A text alone: `"orders.order-placed"`.
    Text(LitStr),
    /// A word, after which its value follows: `version = 2`.
    Word(Ident),
}

/// Reads the settings of every attribute called `name`, in any order.
pub(crate) fn read_all(
    attributes: &[Attribute],
    name: &str,
    mut setting: impl FnMut(Key, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    let ours = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident(name));
    for attribute in ours {
        let Meta::List(list) = &attribute.meta else {
            let form = format!("write the settings in parentheses: `#[{name}(..)]`");
            return Err(Error::new_spanned(&attribute.meta, form));
        };
        list.parse_args_with(|input: ParseStream<'_>| read(input, &mut setting))?;
    }
    Ok(())
}

/// Reads settings separated by commas.
pub(crate) fn read(
    input: ParseStream<'_>,
    setting: &mut impl FnMut(Key, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    while !input.is_empty() {
        let key = if input.peek(LitStr) {
            Key::Text(input.parse()?)
        } else if input.peek(Ident::peek_any) {
            Key::Word(input.call(Ident::parse_any)?)
        } else {
            return Err(input.error("expected a text or a setting: `key = value`"));
        };
        setting(key, input)?;
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

/// Reads `= value`.
pub(crate) fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

/// Reads `= 2`: a version, which counts from 1.
pub(crate) fn version(input: ParseStream<'_>) -> Result<LitInt> {
    let literal: LitInt = value(input)?;
    match literal.base10_parse::<i32>() {
        Ok(1..) => Ok(literal),
        _ => Err(Error::new(
            literal.span(),
            "a version is a whole number from 1 to 2147483647",
        )),
    }
}

/// Keeps a value, once.
pub(crate) fn keep<T>(slot: &mut Option<T>, value: T, what: &str, span: Span) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(Error::new(span, format!("{what} is given twice")));
    }
    Ok(())
}

/// Makes the error for a word that is no setting.
pub(crate) fn unknown(word: &Ident, known: &str) -> Error {
    Error::new(
        word.span(),
        format!("unknown setting `{word}`; known: {known}"),
    )
}

/// Checks a stored name: `max` visible ASCII characters at most.
pub(crate) fn check_name(name: &LitStr, max: usize) -> Result<()> {
    let text = name.value();
    let is_usable =
        (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_usable {
        return Ok(());
    }
    let fact = format!("the name {text:?} is not usable; take 1 to {max} visible ASCII characters");
    Err(Error::new(name.span(), fact))
}

/// Returns the path of what generated code refers to.
pub(crate) fn root(facade: Option<&Path>) -> TokenStream {
    facade.map_or_else(
        || quote!(::sagabus::__private),
        |path| quote!(#path::__private),
    )
}
